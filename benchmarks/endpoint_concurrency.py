"""Answers per second of an endpoint expert at concurrency 16 against 1, over HTTP on this machine.

    python -m benchmarks.endpoint_concurrency [--latency SECONDS] [--queries N] [--rounds N]

The server takes the same time for every answer, however many it gives at once, so that what is measured is how much of
the waiting the client saves. The two are timed in turn; rates are of the median times. Target: at least 8 times.
"""

import argparse
import statistics
import time

from tests.chat_server import ChatServer
from zooter_hf.experts import EndpointExpert
from zooter_hf.modeling import ExpertSpec


CONCURRENCIES = (1, 16)


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds that the server takes for an answer")
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    queries = [f"query {number}" for number in range(arguments.queries)]
    seconds: dict[int, list[float]] = {concurrency: [] for concurrency in CONCURRENCIES}
    with ChatServer(latency=arguments.latency) as server:
        experts = {
            concurrency: EndpointExpert(
                ExpertSpec(
                    f"at {concurrency}",
                    model="echo",
                    backend="endpoint",
                    base_url=server.base_url,
                    options={"concurrency": concurrency},
                )
            )
            for concurrency in CONCURRENCIES
        }
        for expert in experts.values():
            expert.answer(queries[:1])  # loads the client
        for _ in range(arguments.rounds):
            for concurrency, expert in experts.items():
                start = time.perf_counter()
                answers = expert.answer(queries)
                seconds[concurrency].append(time.perf_counter() - start)
                assert [answer.text for answer in answers] == queries
        for expert in experts.values():
            expert.close()

    rates = {concurrency: arguments.queries / statistics.median(times) for concurrency, times in seconds.items()}
    print(f"{arguments.queries} queries, {arguments.latency:g} s an answer, median of {arguments.rounds} rounds\n")
    print("| concurrency | answers per second | of the possible | ratio |")
    print("|---:|---:|---:|---:|")
    for concurrency, rate in rates.items():
        share = rate * arguments.latency / concurrency
        print(f"| {concurrency} | {rate:.1f} | {share:.0%} | {rate / rates[1]:.1f} |")


if __name__ == "__main__":
    main()
