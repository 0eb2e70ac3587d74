# Rules over all updates of a round: combine/rows.h for Python, with shapes checked. Included by core.pyx.

def gram(const float[:, ::1] rows not None, double[:, ::1] out not None) -> None:
    """out (k,k) += rows (k,c) rowsᵀ, below the diagonal and on it."""
    cdef int64_t k = rows.shape[0], c = rows.shape[1]
    if out.shape[0] != k or out.shape[1] != k:
        raise ValueError("out must be k by k for k rows")
    if k and c:
        with nogil:
            efl_gram(&out[0, 0], &rows[0, 0], k, c)


def mix_rows(float[:, ::1] out not None, const double[:, ::1] weights not None, const float[:, ::1] rows not None):
    """out (m,c) = weights (m,k) rows (k,c). Weights of at most 29 significant bits give the same bits on all machines."""
    cdef int64_t m = weights.shape[0], k = rows.shape[0], c = rows.shape[1]
    if out.shape[0] != m or out.shape[1] != c or weights.shape[1] != k:
        raise ValueError("out is (m,c), weights (m,k) and rows (k,c)")
    if m and k and c:
        with nogil:
            efl_mix_rows(&out[0, 0], &weights[0, 0], &rows[0, 0], m, k, c)


def sort_columns(float[:, ::1] rows not None) -> None:
    """Sort each column of rows (k,c), smallest first, in place."""
    if rows.shape[0] and rows.shape[1]:
        with nogil:
            efl_sort_columns(&rows[0, 0], rows.shape[0], rows.shape[1])


def mean_rows(float[::1] out not None, const float[:, ::1] rows not None, Py_ssize_t first, Py_ssize_t last):
    """out (c,) = the mean of rows `first` to `last` - 1 of rows (k,c)."""
    if not 0 <= first < last <= rows.shape[0] or out.shape[0] != rows.shape[1]:
        raise ValueError("first and last must be among the rows, and out as long as they are")
    if out.shape[0]:
        with nogil:
            efl_mean_rows(&out[0], &rows[0, 0], first, last, out.shape[0])


def mean_nearest(float[::1] out not None, const float[:, ::1] rows not None, Py_ssize_t keep) -> None:
    """out (c,) = the mean of the `keep` values nearest to the median of each column of rows (k,c), which are sorted."""
    if not 1 <= keep <= rows.shape[0] or out.shape[0] != rows.shape[1]:
        raise ValueError("keep must be 1 to k, and out as long as the rows")
    if out.shape[0]:
        with nogil:
            efl_mean_nearest(&out[0], &rows[0, 0], rows.shape[0], keep, out.shape[0])
