// Signed 8-bit activations, n-bit codes in 16-column 4-k order, NEON of every 64-bit ARM (Cortex-A53, A72).
//
// smull/smlal sum products in 16 bits, addp pairs two vectors still in 16 bits, sadalp widens. Two products
// of T quads fit while (2^n - 1) * 128 * 2T < 2^15; 8-bit operands need 32 bits before the first addition.
#include "neon.h"
#include "table.h"

namespace bitvox {
namespace {

constexpr int quads_in_16_bits(int bits) { return bits <= 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1; }

struct NeonBaseline : Neon {
    static constexpr int kRowBlocks = 1;
    static constexpr int kTileBlocks = 1;
    static constexpr Heights heights(int, bool grouped) { return {0, grouped ? 1 : 2}; }
    static constexpr int panel_kind(int bits) { return bits < 4 ? 4 : bits; }

    template <int q>
    static BITVOX_INLINE int8x16_t quad(const int8_t* row) {
        return vreinterpretq_s8_s32(vld1q_dup_s32(reinterpret_cast<const int32_t*>(row + 4 * q)));
    }

    template <int bits>
    struct Sum {
        static constexpr int kRun = quads_in_16_bits(bits);
        int32x4_t value;
        int16x8_t low, high;  // columns 0..1 and 2..3, four partial sums each

        BITVOX_INLINE void start() { value = vdupq_n_s32(0); }

        template <int q>
        BITVOX_INLINE void add(uint8x16_t codes, int8x16_t four) {
            const int8x16_t w = operand<bits>(codes);
            if constexpr (q % kRun == 0) {
                low = vmull_s8(vget_low_s8(w), vget_low_s8(four));
                high = vmull_high_s8(w, four);
            } else {
                low = vmlal_s8(low, vget_low_s8(w), vget_low_s8(four));
                high = vmlal_high_s8(high, w, four);
            }
            if constexpr (bits == 8) {
                value = pinned(vaddq_s32(value, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high))));
            } else if constexpr (q % kRun == kRun - 1) {
                value = vpadalq_s16(value, vpaddq_s16(low, high));
            }
        }

        BITVOX_INLINE int32x4_t finish() const { return value; }
    };
};

bool supported() { return true; }

constexpr Kernels kTable = make_kernels<NeonBaseline>("neon", supported);

}  // namespace

const Kernels& kernels_neon() { return kTable; }

}  // namespace bitvox
