"""Writes examples.h: examples of scikit-learn's handwritten digits, 8 x 8 pixels each, as arrays of C.

python write_examples.py FILE.h [COUNT]. A device would read a sensor instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgefl import data


def main(path: Path, count: int) -> None:
    """Write the first `count` examples of those that are trained on."""
    digits = data.load("digits")
    x = digits.x_train[:count].reshape(count, -1)
    rows = ["    " + " ".join(f"{value:.8e}f," for value in row) for row in x.tolist()]
    labels = " ".join(f"{label}," for label in digits.y_train[:count].tolist())
    path.write_text(
        f"#include <stdint.h>\n\n#define EXAMPLES {count}\n\n"
        f"static const float example_x[] = {{ /* (EXAMPLES, {x.shape[1]}) */\n" + "\n".join(rows) + "\n};\n"
        f"static const int64_t example_y[] = {{{labels}}};\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100)
