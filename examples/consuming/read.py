# Reads the log as a team: every event at least once. Needs: pip install nats-py
import asyncio
import os

import nats
from nats.errors import TimeoutError


async def main() -> None:
    connection = await nats.connect(
        os.environ["NATS_URL"],
        inbox_prefix=os.environ["NATS_INBOX_PREFIX"],
        max_reconnect_attempts=-1,
    )
    jetstream = connection.jetstream()
    consumer = await jetstream.pull_subscribe_bind(os.environ["NATS_CONSUMER"], os.environ["NATS_STREAM"])
    while True:
        try:
            messages = await consumer.fetch(500, timeout=5)
        except TimeoutError:
            continue
        for message in messages:
            print(message.metadata.sequence.stream, message.subject, message.data.decode(), flush=True)
            await message.ack()


asyncio.run(main())
