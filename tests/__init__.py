"""The tests run commands in their own process, in which OpenCV is imported long before; it asks for its limit then."""

from lupctl.core.system.disk.limits import limit_pixels

limit_pixels()
