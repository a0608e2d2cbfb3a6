"""Bitvox's operators for torch: what an exported program calls, and its meaning on a CPU.

Importing this module registers the operators with torch, with the `.out` variants that ExecuTorch calls.

`bitvox::linear` and `bitvox::conv1d` compute on packed weights. x is float32; weight holds the bytes of a
`PackedWeight`, uint8 [bytes]; bias is float32 [outputs] or None; activation is `none` or `gelu`. With x_scale
0 activations are rounded to 8 bits with scales of their own: each row of a linear, each run of 128 output
frames of a convolution. With x_scale > 0 they are calibrated:
q = clip(rint(x / x_scale) + x_zero, -128, 127).

`bitvox::lookup` gives the rows of a packed linear weight of K = `width` that int64 tokens [...] name, as
float32 [..., width].

`bitvox::wave_conv1d` is a float Conv1d of x [B, 1, T] with weight [N, 1, taps] and no padding.
`bitvox::instance_norm` gives each channel of x [B, C, T] its own mean and variance over T, as a group norm
with a group per channel, and then applies the activation. `bitvox::layer_norm` normalises the last dimension
of x + added, or of x where added is None. `bitvox::attention` is softmax(scale * q k^T) v, head by head, of
q, k and v [B, T, heads * width].

Constants of all of them may be float16.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bitvox.runtime_kernels import api

_COMMON = "str activation, float x_scale, int x_zero"
_LINEAR = f"(Tensor x, Tensor weight, Tensor? bias, int outputs, {_COMMON}"
_CONV1D = (
    "(Tensor x, Tensor weight, Tensor? bias, int outputs, int taps, int stride, int padding, int dilation, "
    f"int groups, {_COMMON}"
)

_LOOKUP = "(Tensor tokens, Tensor weight, int width"
_WAVE_CONV1D = "(Tensor x, Tensor weight, Tensor? bias, int stride"
_INSTANCE_NORM = "(Tensor x, Tensor scale, Tensor bias, float epsilon, str activation"
_LAYER_NORM = "(Tensor x, Tensor? added, Tensor scale, Tensor bias, float epsilon"
_ATTENTION = "(Tensor q, Tensor k, Tensor v, int heads, float scale"

_library = torch.library.Library("bitvox", "FRAGMENT")
for _name, _arguments in (
    ("linear", _LINEAR),
    ("conv1d", _CONV1D),
    ("lookup", _LOOKUP),
    ("wave_conv1d", _WAVE_CONV1D),
    ("instance_norm", _INSTANCE_NORM),
    ("layer_norm", _LAYER_NORM),
    ("attention", _ATTENTION),
):
    _library.define(f"{_name}{_arguments}) -> Tensor")
    _library.define(f"{_name}.out{_arguments}, *, Tensor(a!) out) -> Tensor(a!)")


def frames_out(frames: int, taps: int, stride: int, padding: int, dilation: int) -> int:
    """Output frames of a Conv1d over `frames` input frames."""
    return (frames + 2 * padding - dilation * (taps - 1) - 1) // stride + 1


@torch.library.register_fake("bitvox::linear")
def _fake_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    outputs: int,
    activation: str,
    x_scale: float,
    x_zero: int,
) -> Tensor:
    return x.new_empty((*x.shape[:-1], outputs))


@torch.library.register_fake("bitvox::conv1d")
def _fake_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    outputs: int,
    taps: int,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
    activation: str,
    x_scale: float,
    x_zero: int,
) -> Tensor:
    return x.new_empty((x.shape[0], outputs, frames_out(x.shape[2], taps, stride, padding, dilation)))


@torch.library.register_fake("bitvox::lookup")
def _fake_lookup(tokens: Tensor, weight: Tensor, width: int) -> Tensor:
    return torch.empty((*tokens.shape, width), dtype=torch.float32, device=tokens.device)


@torch.library.register_fake("bitvox::wave_conv1d")
def _fake_wave_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0], frames_out(x.shape[2], weight.shape[2], stride, 0, 1)))


@torch.library.register_fake("bitvox::instance_norm")
def _fake_instance_norm(x: Tensor, scale: Tensor, bias: Tensor, epsilon: float, activation: str) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("bitvox::layer_norm")
def _fake_layer_norm(x: Tensor, added: Tensor | None, scale: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("bitvox::attention")
def _fake_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float) -> Tensor:
    return torch.empty_like(q)


def _linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    outputs: int,
    activation: str,
    x_scale: float,
    x_zero: int,
) -> Tensor:
    packed = _packed(weight, outputs)
    rows = x.reshape(-1, x.shape[-1])
    y = api.linear(
        rows, packed, _floats(bias), 1, _activation(activation), x_scale=x_scale or None, x_zero_point=x_zero
    )
    return y.reshape(*x.shape[:-1], outputs)


def _conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    outputs: int,
    taps: int,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
    activation: str,
    x_scale: float,
    x_zero: int,
) -> Tensor:
    y: Tensor = api.conv1d(
        x.contiguous(),
        _packed(weight, outputs),
        _floats(bias),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        activation=_activation(activation),
        x_scale=x_scale or None,
        x_zero_point=x_zero,
    )
    return y


def _packed(weight: Tensor, outputs: int) -> api.PackedWeight:
    packed = api.PackedWeight.from_bytes(weight.numpy())
    if packed.shape[0] != outputs:
        raise ValueError(f"weight: packed with {packed.shape[0]} outputs; the call says {outputs}")
    return packed


def _activation(name: str) -> api.Activation:
    if name not in ("none", "gelu"):
        raise ValueError(f"activation: {name!r}; 'none' or 'gelu' is needed")
    return "gelu" if name == "gelu" else None


def _lookup(tokens: Tensor, weight: Tensor, width: int) -> Tensor:
    found: Tensor = api.lookup(api.PackedWeight.from_bytes(weight.numpy()), tokens.reshape(-1))
    return found.reshape(*tokens.shape, width)


def _wave_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    return functional.conv1d(x, weight.float(), _floats(bias), stride)


def _instance_norm(x: Tensor, scale: Tensor, bias: Tensor, epsilon: float, activation: str) -> Tensor:
    y = functional.group_norm(x, x.shape[1], scale.float(), bias.float(), epsilon)
    return y if _activation(activation) is None else functional.gelu(y)


def _layer_norm(x: Tensor, added: Tensor | None, scale: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    x = x if added is None else x + added
    return functional.layer_norm(x, x.shape[-1:], scale.float(), bias.float(), epsilon)


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float) -> Tensor:
    queries, keys, values = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    scores = torch.softmax(scale * (queries @ keys.transpose(2, 3)), dim=-1)
    return (scores @ values).transpose(1, 2).flatten(2)


def _floats(constant: Tensor | None) -> Tensor | None:
    return None if constant is None else constant.float()


def _linear_out(*arguments: object, out: Tensor) -> Tensor:
    return out.copy_(_linear(*arguments))  # type: ignore[arg-type]


def _conv1d_out(*arguments: object, out: Tensor) -> Tensor:
    return out.copy_(_conv1d(*arguments))  # type: ignore[arg-type]


def _lookup_out(*arguments: object, out: Tensor) -> Tensor:
    return out.copy_(_lookup(*arguments))  # type: ignore[arg-type]


def _wave_conv1d_out(*arguments: object, out: Tensor) -> Tensor:
    return out.copy_(_wave_conv1d(*arguments))  # type: ignore[arg-type]


def _instance_norm_out(*arguments: object, out: Tensor) -> Tensor:
    return out.copy_(_instance_norm(*arguments))  # type: ignore[arg-type]


def _layer_norm_out(*arguments: object, out: Tensor) -> Tensor:
    return out.copy_(_layer_norm(*arguments))  # type: ignore[arg-type]


def _attention_out(*arguments: object, out: Tensor) -> Tensor:
    return out.copy_(_attention(*arguments))  # type: ignore[arg-type]


_library.impl("linear", _linear, "CPU")
_library.impl("conv1d", _conv1d, "CPU")
_library.impl("linear.out", _linear_out, "CPU")
_library.impl("conv1d.out", _conv1d_out, "CPU")
_library.impl("lookup", _lookup, "CPU")
_library.impl("lookup.out", _lookup_out, "CPU")
_library.impl("wave_conv1d", _wave_conv1d, "CPU")
_library.impl("instance_norm", _instance_norm, "CPU")
_library.impl("wave_conv1d.out", _wave_conv1d_out, "CPU")
_library.impl("instance_norm.out", _instance_norm_out, "CPU")
_library.impl("layer_norm", _layer_norm, "CPU")
_library.impl("attention", _attention, "CPU")
_library.impl("layer_norm.out", _layer_norm_out, "CPU")
_library.impl("attention.out", _attention_out, "CPU")
