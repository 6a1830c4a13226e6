"""Arrays that look like CuPy's and lie in main memory: they are read by DLPack only, never turned into NumPy's."""

import numpy as np


class DeviceArray:
    """As a CuPy array, it refuses to become a NumPy array by itself."""

    def __init__(self, values):
        self.values = np.array(values)

    shape = property(lambda self: self.values.shape)
    ndim = property(lambda self: self.values.ndim)
    dtype = property(lambda self: self.values.dtype)
    strides = property(lambda self: self.values.strides)
    __cuda_array_interface__ = property(lambda self: self.values.__array_interface__)

    def __len__(self):
        return len(self.values)

    def __array__(self, *arguments, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


def from_dlpack(tensor):
    result = DeviceArray(())
    result.values = np.from_dlpack(tensor)
    return result


def ascontiguousarray(x):
    return DeviceArray(np.ascontiguousarray(x.values))
