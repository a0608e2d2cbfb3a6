// Whether this process may use matrix registers; asked once, because the system must grant them.
#pragma once

namespace bitvox {

bool may_use_amx_int8();

}  // namespace bitvox
