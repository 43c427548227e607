"""The files around the model: for make, CMake, Arduino and Zephyr.

Every layout has the model, its self-test and the budget. `c` and `cmake` also hold what the target needs to
run under QEMU, so that `make run-selftest` works right after the export.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_rnn import __version__
from edge_rnn.core.model import Model
from firmware_export import toolchain
from firmware_export.selftest import main_file
from firmware_export.targets import Target

LAYOUTS = ("c", "cmake", "arduino", "zephyr")
_WARNINGS = "-std=c99 -Wall -Wextra -Wconversion -pedantic"


def arrange(layout: str, model: Model, name: str, target: Target, files: Mapping[str, str]) -> dict[str, str]:
    """All files of the export by path; `files` are the C files, which the layout puts where they belong."""
    if layout == "arduino":
        return {f"src/{path}": text for path, text in files.items()} | _arduino(model, name, target)
    if layout == "zephyr":
        return {f"src/{path}": text for path, text in files.items()} | _zephyr(name)
    found = dict(files) | {f"{name}_selftest_main.c": main_file(name)}
    if target.script:
        base = toolchain.harness()
        for file in (target.start, target.script, "semihosting.h", "stream.h"):
            found[f"qemu/{file}"] = (base / file).read_text("utf-8")
    return found | (_make(name, target) if layout == "c" else _cmake(name, target))


def _flags(target: Target) -> str:
    own = toolchain.host_flags(fused=target.fused) if target.name == "host" else ()
    return " ".join([*target.flags, *own])


def _linking(target: Target, folder: str) -> str:
    memory = " ".join(f"-Wl,--defsym={key}={value}" for key, value in target.memory)
    return f"-nostdlib -nostartfiles -T {folder}qemu/{target.script} {memory}".rstrip()


def _tick(target: Target) -> str:
    return "".join(f" -D{key}={value}u" for key, value in target.memory if key == "TICK_PS")


def _emulator(target: Target) -> str:
    words = list(target.machine)
    if target.script:
        words += ["-nographic", "-semihosting-config", "enable=on,target=native", "-kernel"]
    return " ".join(words)


def _make(name: str, target: Target) -> dict[str, str]:
    bare = target.script != ""
    start = f" qemu/{target.start}" if bare else ""
    emulator = _emulator(target)
    run = f"{emulator} {name}_selftest.elf" if emulator else f"./{name}_selftest.elf"
    link = f"{_linking(target, '')} -Iqemu{_tick(target)} -ffreestanding" if bare else ""
    library = " -lgcc" if bare else ""
    text = f"""\
# {name} for {target.title}.
#   make               {name}.o: link it into your program and include {name}.h
#   make run-selftest  build the self-test and run it{" under QEMU" if emulator else ""}
CC = {target.compiler}
ARCH = {_flags(target)}
OPT = -O2
# -ffp-contract=off: the compiler must not fuse a product and a sum by itself, or bits differ.
CFLAGS = {_WARNINGS} -ffp-contract=off

all: {name}.o

{name}.o: {name}.c {name}.h
	$(CC) $(ARCH) $(OPT) $(CFLAGS) -c -o $@ {name}.c

{name}_selftest.o: {name}_selftest.c {name}_selftest.h {name}.h
	$(CC) $(ARCH) $(OPT) $(CFLAGS) -c -o $@ {name}_selftest.c

{name}_selftest.elf: {name}.o {name}_selftest.o {name}_selftest_main.c
	$(CC) $(ARCH) $(OPT) {link} -o $@ {name}_selftest_main.c{start} {name}_selftest.o {name}.o{library}

run-selftest: {name}_selftest.elf
	{run} && echo "{name}: every bit is right"

clean:
	rm -f {name}.o {name}_selftest.o {name}_selftest.elf

.PHONY: all run-selftest clean
"""
    return {"Makefile": "\n".join(line.rstrip() for line in text.splitlines()) + "\n"}


def _cmake(name: str, target: Target) -> dict[str, str]:
    bare = target.script != ""
    emulator = _emulator(target)
    here = "${CMAKE_CURRENT_SOURCE_DIR}"
    sources = f"{name}_selftest_main.c {name}_selftest.c" + (f" qemu/{target.start}" if bare else "")
    if bare:
        link = _linking(target, f"{here}/").split()
        extra = (
            f"  target_include_directories({name}_selftest PRIVATE qemu)\n"
            f"  target_compile_options({name}_selftest PRIVATE -ffreestanding -std=gnu99{_tick(target)})\n"
            f"  target_link_options({name}_selftest PRIVATE {' '.join(_flags(target).split() + link)})\n"
            f"  target_link_libraries({name}_selftest PRIVATE gcc)\n"
        )
    else:
        extra = ""
    command = f"{emulator} $<TARGET_FILE:{name}_selftest>".strip()
    text = f"""\
# {name} for {target.title}. In your project: add_subdirectory(...) and target_link_libraries(app {name}).
# On its own it builds the self-test, and `ctest` runs it; then configure with
#   cmake -B build -DCMAKE_TOOLCHAIN_FILE=toolchain.cmake
cmake_minimum_required(VERSION 3.16)
project({name} C)

add_library({name} STATIC {name}.c)
target_include_directories({name} PUBLIC {here})
set_target_properties({name} PROPERTIES C_STANDARD 99 C_EXTENSIONS OFF)
target_compile_options({name} PRIVATE {_flags(target)} -ffp-contract=off -Wall -Wextra -Wconversion -pedantic)

if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
  enable_testing()
  add_executable({name}_selftest {sources})
  target_compile_options({name}_selftest PRIVATE {_flags(target)})
  target_link_libraries({name}_selftest PRIVATE {name})
{extra}  add_test(NAME {name}_selftest COMMAND {command})
endif()
"""
    text = text.replace(f"target_compile_options({name}_selftest PRIVATE )\n  ", "")
    system = "Generic" if bare else "Linux"
    tools = f"""\
# The compiler of this export's target.
set(CMAKE_SYSTEM_NAME {system})
set(CMAKE_C_COMPILER {target.compiler})
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_BUILD_TYPE Release CACHE STRING "")
"""
    files = {"CMakeLists.txt": text}
    return files if target.name == "host" else files | {"toolchain.cmake": tools}


def _arduino(model: Model, name: str, target: Target) -> dict[str, str]:
    machines = {"cortex-m0plus": "samd,rp2040", "m4f": "samd,nrf52,stm32,mbed", "m7": "stm32,mbed,teensy"}
    more = " and its anomaly detector" if model.detector else ""
    properties = f"""\
name={name}
version=1.0.0
author=edge-rnn {__version__}
maintainer=edge-rnn {__version__}
sentence=A recurrent network{more}, exported for {target.title}.
paragraph=One step per reading, no heap, the bits of the runtime it came from; see src/{name}.h.
category=Data Processing
url=https://example.com/edge-rnn
architectures={machines.get(target.name, "*")}
includes={name}.h
"""
    detect = model.detector is not None
    period = 1000
    if model.detector is not None and model.detector.period_ns:
        period = max(1, model.detector.period_ns // 1_000_000)
    pins = "\n".join(
        f"  x[{k}] = analogRead(A{k}); /* {_comment(i.name)} */" for k, i in enumerate(model.inputs)
    )
    upper = name.upper()
    if detect:
        body = f"""\
static {name}_state state;
static const char *const STATUS[] = {{"warming", "normal", "pending", "anomaly", "clearing", "fault"}};

void setup() {{
  Serial.begin(115200);
  {name}_init(&state);
}}

void loop() {{
  static int64_t now_ns = 0;
  double x[{upper}_INPUTS];
  {name}_verdict verdict;

  /* Raw readings, in the units the model was trained with: convert the ADC's counts here. */
{pins}
  now_ns += INT64_C({period}000000);
  if ({name}_detect(&state, now_ns, x, UINT64_C({(1 << model.input_size) - 1}), &verdict) == {upper}_OK) {{
    Serial.print(STATUS[verdict.status]);
    Serial.print(" score ");
    Serial.println(verdict.score);
  }}
  delay({period});
}}
"""
    else:
        body = f"""\
static {name}_state state;

void setup() {{
  Serial.begin(115200);
  {name}_init(&state);
}}

void loop() {{
  float x[{upper}_INPUTS];
  float y[{upper}_OUTPUTS];

  /* Readings in model space: scaled as for the training. */
{pins}
  if ({name}_step(&state, x, y) == {upper}_OK) {{
    Serial.println(y[0]);
  }}
  delay({period});
}}
"""
    what = "verdicts" if detect else "outputs"
    monitor = f"/* Reads the sensors and prints {what}. */\n#include <{name}.h>\n\n{body}"
    check = f"""\
/* Runs the self-test on the board: 0 words differ if the bits are those of the runtime. */
#include <{name}.h>
#include <{name}_selftest.h>

void setup() {{
  Serial.begin(115200);
  while (!Serial) {{
  }}
  Serial.print("words that differ: ");
  Serial.println({name}_selftest(0, 0));
}}

void loop() {{
}}
"""
    return {
        "library.properties": properties,
        f"examples/{name}_monitor/{name}_monitor.ino": monitor,
        f"examples/{name}_check/{name}_check.ino": check,
    }


def _zephyr(name: str) -> dict[str, str]:
    upper = name.upper()
    return {
        "zephyr/module.yml": f"name: {name}\nbuild:\n  cmake: zephyr\n  kconfig: zephyr/Kconfig\n",
        "zephyr/CMakeLists.txt": f"""\
if(CONFIG_{upper})
  zephyr_library_named({name})
  zephyr_library_sources(../src/{name}.c)
  zephyr_library_sources_ifdef(CONFIG_{upper}_SELFTEST ../src/{name}_selftest.c)
  zephyr_library_compile_options(-ffp-contract=off)
  zephyr_include_directories(../src)
endif()
""",
        "zephyr/Kconfig": f"""\
config {upper}
	bool "The recurrent model {name}"
	help
		Adds {name}.h. A core with a float unit needs CONFIG_FPU=y, and CONFIG_FPU_SHARING=y if
		more than one thread uses it.

config {upper}_SELFTEST
	bool "The self-test of {name}"
	depends on {upper}
	help
		Adds {name}_selftest(), which returns the number of words that differ from the runtime's.
""",
    }


def _comment(text: str) -> str:
    return "".join(ch if ch.isalnum() or ch in " _-." else "?" for ch in text)
