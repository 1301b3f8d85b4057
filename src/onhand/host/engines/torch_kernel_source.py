"""The kernel that `torch_kernels` starts, as Triton reads it; only imported where Triton is."""

import triton
import triton.language as tl

__all__ = ["multiply"]


@triton.jit  # type: ignore[untyped-decorator] # Triton has no types
def multiply(  # type: ignore[no-untyped-def] # its compiler reads `tl.constexpr` alone
    x,
    codes,
    scales,
    zeros,
    result,
    n,
    k,
    n_groups,
    group_bytes,
    middle: tl.constexpr,
    has_zeros: tl.constexpr,
    bits: tl.constexpr,
    block_rows: tl.constexpr,
    block_bytes: tl.constexpr,
):
    """Compute `block_rows` outputs of one row of x: see `multiply_codes`."""
    rows = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    row = tl.program_id(1)
    inside = rows < n
    row_bytes = n_groups * group_bytes
    codes_in_byte: tl.constexpr = 8 // bits
    total = tl.zeros([block_rows], dtype=tl.float32)
    for start in range(0, row_bytes, block_bytes):
        place = start + tl.arange(0, block_bytes)
        there = inside[:, None] & (place[None, :] < row_bytes)
        packed = tl.load(codes + rows[:, None].to(tl.int64) * row_bytes + place[None, :],
                         mask=there, other=0).to(tl.int32)  # fmt: skip
        group = rows[:, None] * n_groups + place[None, :] // group_bytes
        scale = tl.load(scales + group, mask=there, other=0.0).to(tl.float32)
        zero = tl.full([block_rows, block_bytes], middle, dtype=tl.float32)
        if has_zeros:
            zero = tl.load(zeros + group, mask=there, other=0).to(tl.float32)
        for i in tl.static_range(codes_in_byte):
            code = (packed >> (i * bits)) & ((1 << bits) - 1)
            column = place * codes_in_byte + i
            value = tl.load(x + row * k + column, mask=column < k, other=0.0).to(tl.float32)
            total += tl.sum((code.to(tl.float32) - zero) * scale * value[None, :], axis=1)
    tl.store(result + row * n + rows, total, mask=inside)
