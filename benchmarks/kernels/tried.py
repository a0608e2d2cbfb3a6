"""What was tried for a goal that some machine misses, by hand: printed where the goal is missed."""

from __future__ import annotations

TRIED = {
    "time of every n < 8 over ours at 8, M ≥ 50": (
        "7 bits unpack three planes. 2 bits with AMX run first after peers that leave the matrix"
        " registers alone, and that costs them, not their width: 1.91 before an untimed call preceded"
        " every slice, 1.29 since, and 0.93 to 0.96 of 8 bits at 768 x 3072, M=250 with no peers in"
        " between."
    ),
    "share of dot-product peak, M ≥ 250": (
        "AVX512: tiles of 8 x 2 and 7 x 2 registers, unpacking hidden in the first tile, row blocks that"
        " fit L2; the rest is quantising and writing outputs. AMX: the peak is one of registers alone; a"
        " tile needs 2 loads of rows and 2 of columns per 4 multiplications, and outputs cost as much"
        " memory traffic as weights. Prefetching the next panel's output lines gained 1.4 times, unpacking"
        " two steps ahead instead of one nothing."
    ),
    "share of dot-product peak, M = 50": (
        "As above, with the weights read once for only 50 rows: AMX multiplies faster than L2 and L3"
        " deliver codes. Row sums run in two chains instead of one."
    ),
    "ours 8 against the best int8 peer": (
        "At 8 bits nothing is saved but the unpacking, and all read the same bytes; even tiles, row"
        " blocks and prefetching brought it to a few per cent. Where the CPU has AMX, ONNX Runtime"
        " multiplies by it also beside our avx512vnni path, which such a CPU takes only when forced; the"
        " peers without AMX are behind there."
    ),
    "ours 4 against the best int4 peer": (
        "At large M both multiply 8-bit codes at the peak of the CPU; only the unpacking differs, 1 to 2 %."
    ),
    "ours 8 against XNNPACK's 8, M < 50": (
        "One to four rows read 8-bit codes as fast as memory gives them, whoever multiplies. A site that"
        " XNNPACK ran would be in memory twice, as stored and as XNNPACK packs it, so ours has these too."
    ),
    "ours 4 g32 against MatMulNBits 4 g32": (
        "Float scales per 32 inputs cost what the goal below says. In integer steps 4 bits reach it."
    ),
    "ours 8 g32 against MatMulNBits 8 g32": (
        "Float scales per 32 inputs cost what the goal below says; 8-bit codes leave no room for steps."
    ),
    "ours 2 g32 against MatMulNBits 2 g32": (
        "Float scales per 32 inputs cost what the goal below says. In integer steps 2 bits reach it."
    ),
    "group 32 over one scale per output": (
        "Every 8 dot products a conversion and a multiply-add take the same ports. Widening half scales"
        " in vectors and summing groups in one pass helped; for AMX, other registers for every group and"
        " scaling three groups later did not: storing a group's sums costs as much as its multiplication."
        " Scales in integer steps fold into the codes while these are unpacked, exactly; that needs a"
        " quantiser that rounds its scales (`step_scales`) and at most 4 bits."
    ),
    "group 32 in integer steps over one scale per output": (
        "A multiplication and an addition per 64 codes unpacked, in the first tile alone. Steps widened"
        " to words ahead of the tiles cost 18 % at M = 50, so tiles widen them themselves; with no peers"
        " in between, 768 x 3072 took 1.03 to 1.05 then, and less than 1 with AMX."
    ),
    "M = 4 over M = 1, same layer": (
        "The packed tile takes the four rows at once and unpacks once for all of them. Where one row is"
        " limited by arithmetic that takes two to three times as long, where by reading codes 1.3 to 2."
    ),
    "streaming: share of read bandwidth": (
        "Reading line after line instead of quad after quad made 8 bits 1.7 times faster; software"
        " prefetch did not help. Small pages are the likely rest; odd widths wait for unpacking as well."
    ),
    "streaming: time over n/8 of the time at 8": (
        "5 to 7 bits have two or three planes to merge, 8 bits none: unpacking, not memory, is what one"
        " row waits for there. Merging takes one instruction a plane already."
    ),
    "AVX2 alone against fp32 (ORT, all of this CPU), n ≤ 4": (
        "Not a comparison that an AVX2-only CPU would see where ONNX Runtime uses AVX512 here; see the next."
    ),
    "AVX2 alone against fp32 (ORT, all of this CPU), n = 8": (
        "As above; and without VNNI a product of 8-bit codes overflows 16 bits, so panels are widened to 16."
    ),
    "AVX2 alone against fp32 (torch, AVX2 too), n ≤ 4": (
        "Sums stay in 16 bits for as many products as are exact; 3 x 2 tiles, the tallest without spills."
    ),
    "AVX2 alone against fp32 (torch, AVX2 too), n = 8": (
        "vpmaddubsw saturates with 8-bit codes, so panels are widened to 16 bits, once for all rows;"
        " exact sums then leave at most vpmaddwd's rate, half of what codes up to 4 bits get."
    ),
    "extractor convolutions against QLinearConv": (
        "Ours take and give float frames in [N, T]: quantising them and transposing the result take what"
        " the multiplication gains, while QLinearConv is fed 8-bit codes. With activations calibrated"
        " (column `ours 8 calibrated`) finding the largest value falls away, which is 2 to 4 %. Where the"
        " CPU has AMX, QLinearConv multiplies by it also beside our avx512vnni path."
    ),
    "two threads against one": (
        "Wall time, and whatever else had the second core counts. Threads own a contiguous share each, so"
        " that caches stay warm, and take from the other's end when theirs is done; a late thread delays"
        " nobody. Sharing out by column costs each thread the quantising of all rows, waking it about 1 us:"
        " layers of less than 40 us keep those. Static halves by row were slower for M = 50 (1.4 to 1.7),"
        " one queue for all threads lost to cold caches."
    ),
}
