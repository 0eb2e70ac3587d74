# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""edgefl._core: the C core for Python. Checks types, shapes and lengths, owns memory, releases the GIL.

No maths here (that is src/*.c) and no policy (that is trainer.py and accumulator.py).
"""

import os

import numpy as np

from edgefl.errors import OUT_OF_RANGE as _OUT_OF_RANGE
from edgefl.errors import DataError, ModelError, UsageError

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from efl cimport *


cdef void _select_isa() except *:
    cdef efl_error error
    name = os.environ.get("EDGEFL_ISA", "").encode()
    if efl_isa_select(name, &error) != EFL_OK:
        raise ImportError(error.message.decode())


_select_isa()
efl_crc32c_init()


def isa() -> str:
    """The instruction set in use: "baseline" (SSE2), "avx2", "avx512" or "neon"."""
    return efl_isa().decode()


def max_threads() -> int:
    """The largest number of threads that a Net takes."""
    return EFL_MAX_THREADS


def all_finite(const float[::1] x not None) -> bool:
    """Whether `x` has neither NaN nor infinity."""
    cdef bint finite = True
    cdef int64_t n = x.shape[0]
    if n:
        with nogil:
            finite = efl_all_finite(&x[0], n)
    return finite


include "codecs.pxi"
include "tables.pxi"
include "live.pxi"
include "rows.pxi"
include "ring.pxi"
include "machine.pxi"


def permutation(int64_t n, uint64_t seed, uint64_t epoch):
    """(n,) uint32: the order in which `Net.fit` visits the samples in epoch number `epoch`."""
    order = np.empty(n, np.uint32)
    cdef uint32_t[::1] view = order
    if n:
        efl_permutation(&view[0], n, seed, epoch)
    return order


cdef object _failure(efl_error *error):
    """The exception for a failed call."""
    message = error.message.decode("utf-8", "replace")
    if error.code == EFL_DATA:
        return DataError(message, _OUT_OF_RANGE)  # the message has the label or the token
    return UsageError(message) if error.code == EFL_USAGE else ModelError(message)


cdef bint _finished(int code, efl_error *error) except *:
    """Whether a call has done its work; False if it was cancelled, else the exception."""
    if code != EFL_OK and code != EFL_CANCELLED:
        raise _failure(error)
    return code == EFL_OK


include "plan.pxi"


cdef int _choose(efl_data *data, const int64_t[::1] rows) except -1:
    """Let the data be these rows of its arrays."""
    cdef int64_t i, row
    if rows.shape[0] < 1:
        raise ValueError("rows are empty")
    for i in range(rows.shape[0]):
        row = rows[i]
        if row < 0 or row >= data.n:
            raise ValueError(f"row {row} is not one of 0..{data.n - 1}")
    data.rows, data.n = &rows[0], rows.shape[0]
    return 0


cdef class Net:
    """A plan compiled into one arena, for up to `batch` samples at a time. Not re-entrant: one call at a time.

    Arrays are flat and C-contiguous: params (P,) and x float32; y int64 (n * label_count,) if `target_size` is 0,
    else float32 (n * target_size,). `trainer.py` checks their contents; here only what memory safety needs.
    """

    cdef efl_net *net

    def __cinit__(self, plan, int64_t batch=32, max_arena_bytes=None, int threads=1, bint apart=False):
        cdef _Plan compiled = _Plan(plan)
        cdef efl_error error
        cdef int64_t limit = max_arena_bytes or 0
        compiled.c.apart = apart
        if efl_net_new(&self.net, &compiled.c, batch, limit, &error) != EFL_OK:
            raise _failure(&error)
        if efl_net_use_threads(self.net, threads, limit, &error) != EFL_OK:
            raise _failure(&error)

    def __dealloc__(self):
        efl_net_free(self.net)

    @property
    def arena_bytes(self) -> int:
        return efl_net_arena_bytes(self.net)

    @property
    def flops_again(self) -> float:
        """Floating-point operations a sample that backward computes again."""
        return efl_net_flops_again(self.net)

    @property
    def threads(self) -> int:
        return efl_net_threads(self.net)

    @property
    def num_params(self) -> int:
        return efl_net_num_params(self.net)

    @property
    def target_size(self) -> int:
        """Targets a sample; 0 if the one loss takes integer labels. Of several losses, the columns of y."""
        return efl_net_target_size(self.net)

    @property
    def label_count(self) -> int:
        """Labels a sample; 0 if the loss takes targets."""
        return efl_net_label_count(self.net)

    @property
    def mixes_samples(self) -> bool:
        """Whether a training batch must be in the arena whole (batch normalization)."""
        return efl_net_mixes_samples(self.net)

    @property
    def shapes(self) -> list:
        """The per-sample shape of every value, a list of tuples: the input's, then one a node."""
        cdef const efl_shape *shape
        result = []
        for value in range(efl_net_num_values(self.net)):
            shape = efl_net_shape(self.net, value)
            result.append(tuple([shape.dim[i] for i in range(shape.ndim)]))
        return result

    @property
    def flops(self) -> list:
        """Forward floating-point operations a sample, of every node."""
        return [efl_net_flops(self.net, node) for node in range(efl_net_num_values(self.net) - 1)]

    cdef int64_t _samples(self, const float[::1] params, const float[::1] x) except -1:
        cdef int64_t size = efl_net_size(self.net, 0)
        if params.shape[0] != efl_net_num_params(self.net):
            raise ValueError(f"params have {params.shape[0]} elements, expected {efl_net_num_params(self.net)}")
        if x.shape[0] < size or x.shape[0] % size:
            raise ValueError(f"x has {x.shape[0]} elements, expected a positive multiple of {size}")
        return x.shape[0] // size

    cdef efl_data _data(self, const float[::1] params, const float[::1] x, y) except *:
        cdef efl_data data = efl_data(&x[0], NULL, NULL, self._samples(params, x), NULL)
        cdef const int64_t[::1] labels
        cdef const float[::1] targets
        cdef int64_t size = efl_net_target_size(self.net)
        cdef int64_t expected = data.n * (size + efl_net_label_count(self.net))
        if len(y) != expected:
            raise ValueError(f"y has {len(y)} elements, expected {expected}")
        if size:
            targets = y
            data.targets = &targets[0]
        else:
            labels = y
            data.labels = &labels[0]
        return data

    def fit(self, const float[::1] params not None, const float[::1] x not None, y not None,
            float[::1] delta not None, *, int64_t epochs, int64_t batch_size, int64_t max_steps,
            uint64_t seed, double lr, double momentum, double weight_decay, double prox_mu, double clip_norm,
            bint nesterov=False, bint adam=False, bint buffered=False, const float[::1] correction=None,
            const int64_t[::1] rows=None):
        """Local SGD into `delta` (P,); returns (steps, loss), or None if cancelled. Options as efl_fit_options; of
        `correction` (P,) the trained params are read. With `rows`, samples are these rows of x and y."""
        cdef efl_data data = self._data(params, x, y)
        if rows is not None:
            _choose(&data, rows)
        cdef efl_fit_options options = efl_fit_options(
            epochs, batch_size, max_steps, seed, nesterov, adam, lr, momentum, weight_decay, prox_mu, clip_norm,
            NULL, buffered)
        cdef efl_fit_result result
        cdef efl_error error
        cdef int code
        if delta.shape[0] != params.shape[0] or batch_size < 1:
            raise ValueError("delta must be as long as params, and batch_size positive")
        if correction is not None:
            if correction.shape[0] != params.shape[0]:
                raise ValueError("correction must be as long as params")
            if params.shape[0]:
                options.correction = &correction[0]
        cdef const float *start = &params[0] if params.shape[0] else NULL
        cdef float *out = &delta[0] if params.shape[0] else NULL
        with nogil:
            code = efl_fit(self.net, start, &data, &options, out, &result, &error)
        return (result.steps, result.loss) if _finished(code, &error) else None

    def cancel(self) -> None:
        """Make a call that is running in another thread return soon."""
        efl_net_cancel(self.net)

    def set_share(self, int percent) -> None:
        """Compute for this percentage of the time, and rest for the others; from any thread."""
        if not 1 <= percent <= 100:
            raise ValueError("percent must be 1 to 100")
        efl_net_set_share(self.net, percent)

    def gradient(self, const float[::1] params not None, const float[::1] x not None, y not None,
                 float[::1] gradient not None) -> bool:
        """The mean loss's gradient into `gradient` (P,); False if cancelled."""
        cdef efl_data data = self._data(params, x, y)
        cdef efl_error error
        cdef int code
        if gradient.shape[0] != params.shape[0]:
            raise ValueError("gradient must be as long as params")
        cdef const float *start = &params[0] if params.shape[0] else NULL
        cdef float *out = &gradient[0] if params.shape[0] else NULL
        with nogil:
            code = efl_gradient(self.net, start, &data, out, &error)
        return _finished(code, &error)

    def evaluate(self, const float[::1] params not None, const float[::1] x not None, y not None):
        """(mean loss, share of right answers or -1), or None if cancelled."""
        cdef efl_data data = self._data(params, x, y)
        cdef efl_error error
        cdef double loss, accuracy
        cdef int code
        cdef const float *start = &params[0] if params.shape[0] else NULL
        with nogil:
            code = efl_evaluate(self.net, start, &data, &loss, &accuracy, &error)
        return (loss, accuracy) if _finished(code, &error) else None

    def predict(self, const float[::1] params not None, const float[::1] x not None,
                float[::1] out not None) -> bool:
        """The output value of every sample into `out` (n * output size,); False if cancelled."""
        cdef int64_t n = self._samples(params, x)
        cdef efl_error error
        cdef int code
        if out.shape[0] != n * efl_net_size(self.net, efl_net_output(self.net)):
            raise ValueError("out has the wrong length")
        cdef const float *start = &params[0] if params.shape[0] else NULL
        with nogil:
            code = efl_predict(self.net, start, &x[0], n, &out[0], &error)
        return _finished(code, &error)
