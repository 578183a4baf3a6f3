"""`python -m tests.pipeline.fault_rates [LAKES]`: how many runs succeed while requests to S3 fail.

For each rate two deliveries are loaded into each of eleven lakes. A run that fails is repeated with
a working S3, after which the lake must equal that of a load without faults. docs/faults.md has the
figures.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from local.aws.job import JobProcess
from local.aws.moto_server import MotoServer
from local.aws.pipeline import job_environment, s3a_settings
from tests.pipeline.s3_lake import S3Lake
from tests.pipeline.shake import RATES, Faults
from tests.spark.test_guarantees import first_delivery, second_delivery


def load(server: MotoServer, job: JobProcess, bucket: str, seed: int, rate: float) -> Any:
    """Load both deliveries; return the lake, the number of runs that succeeded at once, and the
    faults."""
    lake, succeeded, faults_made = S3Lake(server, bucket), 0, 0
    for number, files in enumerate((first_delivery(), second_delivery())):
        for file in files:
            lake.upload(file.path, file.content)
        with server.wrapped(lambda app: Faults(app, seed, rate)) as faults:
            code = lake.run(job, f"run-{number}")
        succeeded += code == 0
        faults_made += faults.made.total()
        if code:
            print(f"{bucket}: {lake.summary(f'run-{number}')['error']}", flush=True)
            assert lake.run(job, f"run-{number}") == 0, f"{bucket}: the next run failed"
    return lake, succeeded, faults_made


def main(words: list[str]) -> int:
    lakes = int(words[0]) if words else 11
    os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    with MotoServer() as server:
        settings, environment = s3a_settings(server.endpoint), job_environment(server.endpoint)
        with JobProcess(settings=settings, environment=environment) as job:
            expected = load(server, job, "no-faults", 0, 0.0)[0].state()
            for rate in RATES:
                succeeded = faults = 0
                for seed in range(lakes):
                    bucket = f"rate-{rate * 100:.0f}-{seed}"
                    lake, at_once, made = load(server, job, bucket, seed, rate)
                    assert lake.state() == expected, bucket
                    succeeded, faults = succeeded + at_once, faults + made
                print(f"{rate:.0%}: {succeeded} of {2 * lakes} runs, {faults} faults", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
