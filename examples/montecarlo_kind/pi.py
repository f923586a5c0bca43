"""How many of the points in a square are in the circle? Four times as many make pi."""


def sample(random):
    return 4.0 * (random.random() ** 2 + random.random() ** 2 <= 1.0)
