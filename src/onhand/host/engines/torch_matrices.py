"""A bundle's matrices as codes on a torch device, and products with them."""

from typing import TYPE_CHECKING

import numpy as np

from onhand.core.quantized import QuantTensor, unpack_bits

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["TorchMatrix"]

KERNEL_ROWS = 8
"""Most rows of a product that the kernel takes: for more, codes are better turned into a matrix."""
_PACKED = (2, 4, 8)


class TorchMatrix:
    """A matrix (N, K): codes as they are stored, or floats where it is not quantised.

    Codes of 3 bits cross the bounds of bytes: they are kept as one byte each.
    """

    def __init__(
        self, stored: "QuantTensor | np.ndarray", device: "torch.device", dtype: "torch.dtype"
    ) -> None:
        """Bring it to the device.

        Args:
            stored: as `BundleWeights.stored` gives it.
            device: where it lies from now on.
            dtype: of what it is multiplied with.
        """
        import torch

        self._dtype = dtype
        self._whole: Tensor | None = None
        if not isinstance(stored, QuantTensor):
            self.shape = (int(stored.shape[0]), int(stored.shape[1]))
            self._whole = torch.from_numpy(np.array(stored)).to(device=device, dtype=dtype)
            return
        self.shape = stored.shape
        form = stored.format
        self.bits = form.bits if form.bits in _PACKED else 8
        codes = stored.codes if form.bits in _PACKED else unpack_bits(stored.codes, form.bits)
        self.group_size = form.group_size
        self.middle = form.middle
        self.codes = torch.from_numpy(np.array(codes)).to(device)  # (N, G, bytes of a group)
        self.scales = torch.from_numpy(np.array(stored.scales)).to(device)  # (N, G) float16
        self.zeros: Tensor | None = None
        if stored.zeros is not None:
            _, zeros = stored.unpack()
            self.zeros = torch.from_numpy(np.array(zeros)).to(device)  # (N, G) uint8

    @property
    def n_bytes(self) -> int:
        """Bytes on the device."""
        if self._whole is not None:
            return self._whole.nbytes
        zeros = 0 if self.zeros is None else self.zeros.nbytes
        return self.codes.nbytes + self.scales.nbytes + zeros

    def linear(self, x: "Tensor") -> "Tensor":
        """Multiply rows: (T, K) -> (T, N), in the matrix's dtype."""
        if self._whole is None and x.is_cuda and x.shape[0] <= KERNEL_ROWS:
            from onhand.host.engines.torch_kernels import has_kernels, multiply_codes

            if has_kernels():
                return multiply_codes(x, self)
        return x @ self.rows(None).T

    def rows(self, ids: "Tensor | None") -> "Tensor":
        """Return rows as floats: (T,) ids, or None for all of them -> (T, K)."""
        import torch

        if self._whole is not None:
            return self._whole if ids is None else self._whole[ids]
        codes = self.codes if ids is None else self.codes[ids]
        scales = self.scales if ids is None else self.scales[ids]
        if self.bits < 8:
            shifts = torch.arange(0, 8, self.bits, device=codes.device, dtype=torch.uint8)
            codes = (codes[..., None] >> shifts) & ((1 << self.bits) - 1)  # (N, G, bytes, codes)
        n, n_groups = scales.shape
        centred = codes.reshape(n, n_groups, -1).to(self._dtype)  # (N, G, group_size)
        if self.zeros is None:
            centred = centred - self.middle
        else:
            zeros = self.zeros if ids is None else self.zeros[ids]
            centred = centred - zeros[:, :, None].to(self._dtype)
        weights = centred * scales[:, :, None].to(self._dtype)
        return weights.reshape(n, -1)[:, : self.shape[1]]
