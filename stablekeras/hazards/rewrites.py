"""What `stabilize` makes of a hazard's formula, told where it is diagnosed.

`rewrite` holds the patterns themselves; a test keeps the two in step.
"""

__all__ = ["REWRITES"]

REWRITES: dict[str, tuple[str, str]] = {
    "SK101": ("log(softmax(z))", "log_softmax(z)"),
    "SK102": ("log(sigmoid(z))", "log_sigmoid(z)"),
    "SK103": ("log(1 - sigmoid(z))", "log_sigmoid(-z)"),
    "SK104": ("log(1 - sigmoid(z) + eps)", "log_sigmoid(-z)"),
    "SK105": ("log(clip(softmax(z), eps, 1))", "log_softmax(z)"),
    "SK106": ("log(sum(exp(z)))", "logsumexp(z)"),
    "SK107": ("log(prod(x))", "sum(log(x))"),
    "SK108": ("x * log(x)", "x * log(where(x == 0, 1, x))"),
    "SK204": ("exp(z) / sum(exp(z))", "softmax(z)"),
    "SK212": (
        "log(softmax(a) / softmax(b))",
        "log_softmax(a) - log_softmax(b)",
    ),
    "SK302": ("log(1 + exp(z))", "softplus(z)"),
    "SK303": ("exp(z) / sum(exp(z))", "softmax(z)"),
    "SK304": ("log(sum(exp(z)))", "logsumexp(z)"),
    "SK305": ("1 / (1 + exp(-z))", "sigmoid(z)"),
    "SK306": ("exp(a) / exp(b)", "exp(a - b)"),
    "SK308": ("sqrt(exp(x))", "exp(x / 2)"),
    "SK314": ("sum(x) in float16", "sum(x) in float32"),
    "SK401": ("sqrt(x)", "the same with derivative 0 at 0"),
    "SK402": ("sqrt(sum(x ** 2))", "the same with derivative 0 at 0"),
    "SK403": ("sqrt(variance(x))", "the same with derivative 0 at 0"),
    "SK404": ("where(c, log(x), 0)", "where(c, log(where(c, x, 1)), 0)"),
    "SK406": ("x ** 0.5", "the same with derivative 0 at 0"),
    "SK412": ("mask * x", "where(mask, x, 0)"),
    "SK503": (
        "sum(mask * x) / sum(mask)",
        "the same, 0 where the mask is empty",
    ),
    "SK504": (
        "mean(boolean_mask(x, mask))",
        "the same, 0 where nothing is picked",
    ),
    "SK505": (
        "softmax(where(mask, z, -inf))",
        "the same, 0 where all is masked",
    ),
}
