"""The tensor directory as it grows: parameters in the form operations want, each stored once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..blob import ternary
from ..blob.format import Tensor
from ..errors import CompileError
from .code import TensorRef
from .graph import Graph

Quantizer = Callable[[np.ndarray], tuple[np.ndarray, float]]
FLOAT_DTYPES = {"f32": "F32", "f16": "F16", "i8": "I8"}


class TensorPool:
    """Tensors by name; asking twice for one gives the same index.

    `float_dtype`: of linear weights (f32, f16 or i8); gains and biases are F16 unless it is f32.
    `quantizer`: weight -> trits, gamma.
    """

    def __init__(
        self, graph: Graph, float_dtype: str = "f16", quantizer: Quantizer = ternary.quantize
    ) -> None:
        if float_dtype not in FLOAT_DTYPES:
            choices = ", ".join(FLOAT_DTYPES)
            raise CompileError(f"float weights as {float_dtype!r}: one of {choices} expected")
        self.graph = graph
        self.dtype = FLOAT_DTYPES[float_dtype]
        self.quantizer = quantizer
        self.tensors: list[Tensor] = []
        self._index: dict[str, int] = {}

    def _get(self, name: str, make: Callable[[], Tensor]) -> TensorRef:
        if name not in self._index:
            tensor = replace(make(), name=name.removesuffix(".weight"))
            if max(tensor.rows, tensor.cols) > 65535:
                raise CompileError(f"{name}: a dimension of {[tensor.rows, tensor.cols]} > 65535")
            self._index[name] = len(self.tensors)
            self.tensors.append(tensor)
        return TensorRef(self._index[name])

    def _parameter(self, name: str) -> np.ndarray:
        values = np.asarray(self.graph.params[name], dtype=np.float32)
        if not np.isfinite(values).all():
            raise CompileError(f"{name}: a weight is not finite; the training diverged")
        return values

    def matrix(self, name: str) -> TensorRef:
        """A float weight [out, in]."""
        return self._get(name, lambda: Tensor.floats(name, self._parameter(name), self.dtype))

    def ternary(self, name: str, rows: slice | None = None) -> TensorRef:
        """A BitLinear weight [out, in], or some of its rows; one of zeros gets a tiny gamma, for a
        blob wants it > 0."""
        part = name if rows is None else f"{name.removesuffix('.weight')}.{rows.start}-{rows.stop}"

        def make() -> Tensor:
            trits, gamma = self.quantizer(self._parameter(name))
            return Tensor.ternary(part, trits[rows or slice(None)], gamma or ternary.EPS)

        return self._get(part, make)

    def vector(self, name: str) -> TensorRef:
        """A gain or a bias [n]."""
        dtype = "F32" if self.dtype == "F32" else "F16"
        return self._get(name, lambda: Tensor.floats(name, self._parameter(name), dtype))

    def short_vector(self, name: str) -> TensorRef:
        """A gain [n] for a norm in integers."""
        short = f"{name.removesuffix('.weight')}.i16"
        return self._get(short, lambda: Tensor.floats(short, self._parameter(name), "I16"))

    def gain(self, name: str) -> TensorRef:
        """A gain [n] for a norm in floats, which can read what one in integers has as well."""
        short = f"{name.removesuffix('.weight')}.i16"
        return self.short_vector(name) if short in self._index else self.vector(name)

    def factor(self, name: str) -> TensorRef:
        """A trained LoRA factor, F32 so that host and board multiply the same numbers."""
        return self._get(name, lambda: Tensor.floats(name, self._parameter(name)))

    def constant(self, name: str, values: np.ndarray) -> TensorRef:
        """A table that the compiler makes: input scales, angular frequencies."""
        return self._get(name, lambda: Tensor.floats(name, values))
