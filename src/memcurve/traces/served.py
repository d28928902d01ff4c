from ..base import NotDescribed
class Served:
    def __init__(self, curve, *a, **k):
        raise NotDescribed("later")
