# Counts the changes of each token's price, each exactly once, whatever is killed when: the place in the log is in the database
# that holds the result, and both change in one transaction. Needs: pip install nats-py
import asyncio
import json
import os
import sqlite3
import sys

import nats
from nats.errors import TimeoutError

STREAM, NAME = os.environ["NATS_STREAM"], os.environ["NATS_CONSUMER"]

database = sqlite3.connect(os.environ["DATABASE"], isolation_level=None)
database.execute("CREATE TABLE IF NOT EXISTS log_places (consumer TEXT PRIMARY KEY, seq INTEGER NOT NULL, id TEXT NOT NULL)")
database.execute("CREATE TABLE IF NOT EXISTS price_changes (token TEXT PRIMARY KEY, changes INTEGER NOT NULL, price TEXT)")


async def main() -> None:
    connection = await nats.connect(
        os.environ["NATS_URL"],
        inbox_prefix=os.environ["NATS_INBOX_PREFIX"],
        max_reconnect_attempts=-1,
    )
    consumer = await connection.jetstream().pull_subscribe_bind(NAME, STREAM)
    while True:
        try:
            await read_from_place(connection, consumer)
        except nats.errors.Error as error:
            # No answer, as while the server is restarted.
            print(error, file=sys.stderr)
            await asyncio.sleep(1)


async def read_from_place(connection, consumer) -> None:
    """Reads from where the database says, until a message has been lost on the way: then it is called again."""
    place = database.execute("SELECT seq, id FROM log_places WHERE consumer = ?", (NAME,)).fetchone()
    # The last event that was applied is to come once more: it proves that nothing is missing behind it. Without one, the
    # consumer goes back to what it has not acknowledged.
    request = json.dumps({"seq": place[0]}).encode() if place else b""
    answer = json.loads((await connection.request(f"$JS.API.CONSUMER.RESET.{STREAM}.{NAME}", request, timeout=10)).data)
    if "error" in answer:
        raise RuntimeError(answer["error"]["description"])
    proof, delivery = place, 0
    while True:
        try:
            messages = await consumer.fetch(500, timeout=5)
        except TimeoutError:
            continue
        # Numbers of deliveries have no holes: one that is missing was lost with a connection, and would come again later, too late.
        if [message.metadata.sequence.consumer for message in messages] != list(range(delivery + 1, delivery + len(messages) + 1)):
            return
        delivery += len(messages)
        if proof and messages:
            first = messages.pop(0)
            if (first.metadata.sequence.stream, json.loads(first.data)["id"]) != proof:
                raise RuntimeError(f"the log does not go on where this reader was {proof}: empty its tables, and read it anew")
            proof = None
            await first.ack()
        # What is acknowledged late, or whose acknowledgement is lost, comes again: sequences rise, or it is known already.
        fresh, last = [], place[0] if place else 0
        for message in messages:
            if message.metadata.sequence.stream > last:
                fresh.append(message)
                last = message.metadata.sequence.stream
        if fresh:
            place = apply(fresh, place)
        for message in messages:
            await message.ack()


def apply(messages, place):
    """One transaction: the place, if it is still the one that was expected, and the result."""
    to = (messages[-1].metadata.sequence.stream, json.loads(messages[-1].data)["id"])
    database.execute("BEGIN IMMEDIATE")
    if place:
        moved = database.execute("UPDATE log_places SET seq = ?, id = ? WHERE consumer = ? AND seq = ?", (*to, NAME, place[0]))
    else:
        moved = database.execute("INSERT OR IGNORE INTO log_places VALUES (?, ?, ?)", (NAME, *to))
    if moved.rowcount != 1:
        raise RuntimeError("another instance of this reader is at work")
    for message in messages:
        apply_one(message.subject, json.loads(message.data))
    database.execute("COMMIT")
    return to


def apply_one(subject, event) -> None:
    # Another history begins, or there is a gap: a copy of all rows follows, and replaces what is known.
    if subject.endswith("._mark.gap") or (subject.endswith("._mark.snapshot") and event["data"].get("phase") == "begin"):
        database.execute("DELETE FROM price_changes")
    if event.get("op") in ("insert", "update", "read"):
        database.execute(
            """INSERT INTO price_changes VALUES (?, 1, ?)
               ON CONFLICT (token) DO UPDATE SET changes = changes + 1, price = coalesce(excluded.price, price)""",
            (event["key"]["token_id"], event["after"].get("price")),
        )


asyncio.run(main())
