"""How good is a map of zion's east, trained on its west, beside the random forest of a careful user?"""

from _run import need_shared
from _zion import run

if __name__ == "__main__":
    run("zion", (str(need_shared("zion") / "zion" / "landsat8_2345.tif"),))
