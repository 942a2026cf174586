"""The benchmark's query in Apache Flink SQL, over a topic of JSON, from its beginning to its end.

Runs in one process on all cores, with labels as the map that they are, and with what favours Flink: no checkpoints, objects
reused, and the start of a job taken off. The last line on standard output is JSON: the seconds of
the job, and the rows and points of its results, by which the caller sees that nothing is missing.
"""

import argparse
import csv
import json
import os
import pathlib
import tempfile

from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment

# Messages of each partition that the job is started with to learn what starting it takes.
SHORT = 1_000

SOURCE = """
CREATE TABLE {table} (
  name STRING,
  labels MAP<STRING, STRING>,
  ts BIGINT,
  `value` DOUBLE,
  -- Heartbeats have no time, which a watermark needs; the query leaves them out.
  event_time AS COALESCE(TO_TIMESTAMP_LTZ(ts, 3), TO_TIMESTAMP_LTZ(0, 3)),
  WATERMARK FOR event_time AS event_time - INTERVAL '5' SECOND
) WITH (
  'connector' = 'kafka',
  'topic' = '{topic}',
  'properties.bootstrap.servers' = '{brokers}',
  'properties.group.id' = 'bench-flink',
  'format' = 'json',
  'scan.startup.mode' = 'earliest-offset',
  {bound}
)
"""

RESULTS = """
CREATE TABLE {table} (
  window_start TIMESTAMP_LTZ(3), host STRING, region STRING,
  points BIGINT, average DOUBLE, highest DOUBLE, lowest DOUBLE
) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'csv')
"""

QUERY = """
INSERT INTO {results}
SELECT window_start, labels['host'], labels['region'], COUNT(*), AVG(`value`), MAX(`value`), MIN(`value`)
FROM TABLE(TUMBLE(TABLE {source}, DESCRIPTOR(event_time), INTERVAL '1' MINUTE))
WHERE name = 'cpu.load'
GROUP BY window_start, window_end, labels['host'], labels['region']
"""


def environment(jar):
    configuration = Configuration()
    for key, value in {
        "parallelism.default": str(os.cpu_count()),
        "pipeline.jars": pathlib.Path(jar).resolve().as_uri(),
        "pipeline.object-reuse": "true",
        "taskmanager.memory.managed.size": "512m",
        "table.local-time-zone": "UTC",
    }.items():
        configuration.set_string(key, value)
    settings = EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration).build()
    return TableEnvironment.create(settings)


def seconds_of(tables, name, options, bound, output):
    """Runs the job over the topic as far as `bound` says, and gives the seconds that Flink says it ran."""
    source, results = f"source_{name}", f"results_{name}"
    tables.execute_sql(
        SOURCE.format(table=source, topic=options.topic, brokers=options.brokers, bound=bound)
    )
    tables.execute_sql(RESULTS.format(table=results, path=pathlib.Path(output).resolve().as_uri()))
    job = tables.execute_sql(QUERY.format(source=source, results=results))
    ended = job.get_job_client().get_job_execution_result()
    job.wait()
    return ended.result().get_net_runtime() / 1_000


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--connector-jar", required=True)
    parser.add_argument("--output", required=True, help="an empty folder for the results")
    options = parser.parse_args()

    tables = environment(options.connector_jar)
    offsets = ";".join(f"partition:{partition},offset:{SHORT}" for partition in range(options.partitions))
    short = f"'scan.bounded.mode' = 'specific-offsets', 'scan.bounded.specific-offsets' = '{offsets}'"
    # The first one also loads classes.
    for name in ["first", "start"]:
        with tempfile.TemporaryDirectory(prefix="tidemark-flink-") as output:
            start_seconds = seconds_of(tables, name, options, short, output)
    whole_seconds = seconds_of(tables, "whole", options, "'scan.bounded.mode' = 'latest-offset'", options.output)

    rows = points = 0
    for path in pathlib.Path(options.output).rglob("*"):
        if path.is_file():
            with path.open(newline="") as file:
                for row in csv.reader(file):
                    rows += 1
                    points += int(row[3])
    print(json.dumps({
        "job_seconds": whole_seconds - start_seconds,
        "start_seconds": start_seconds,
        "rows": rows,
        "points": points,
    }))


if __name__ == "__main__":
    main()
