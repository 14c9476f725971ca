"""What does elevation, in another CRS and resolution and stacked by the config alone, add on zion?"""

from _zion import run

if __name__ == "__main__":
    run("zion_elevation", ("--config", "configs/zion_elevation_predict.yaml"))
