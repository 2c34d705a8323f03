"""embed.py FILE SOURCE NAME: a C source with the bytes of a file, NAME, and how many they are, NAME_bytes."""

import pathlib
import sys

file, source, name = sys.argv[1:]
data = pathlib.Path(file).read_bytes()
lines = [", ".join(str(byte) for byte in data[at:at + 24]) for at in range(0, len(data), 24)]
pathlib.Path(source).write_text(
    "#include <stddef.h>\n\n"
    f"extern const unsigned char {name}[];\nextern const size_t {name}_bytes;\n\n"
    f"const unsigned char {name}[] = {{\n" + ",\n".join(lines) + "\n};\n"
    f"const size_t {name}_bytes = sizeof {name};\n")
