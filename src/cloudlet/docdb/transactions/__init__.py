"""Transactions over several documents: snapshot reads, buffered writes, a validated commit.

**Isolation** is snapshot isolation, as MongoDB's: every read sees the documents as they were when the first
operation began, and what the transaction itself has written. Two transactions that write the same document
never both commit. Documents that were only read are not validated, so write skew (each reads what the other
writes) is possible; a program that must exclude it writes to a document both have in common.

**Nothing is held open in an engine.** A snapshot is the sequence number of a commit: a document that changed
since is read from the change log. Writes wait in memory, and the commit is one batch with the revision each
written document must still have.

**Write intents** keep a hot document from being fought over. A transaction that writes a document takes its
intent; another transaction that writes it is told of the conflict at once; a write outside any transaction
waits for a while and then goes first, and it is the transaction that conflicts. A document that has met a
conflict lately is *hot*: a transaction that touches it by id for the first time waits in line for its intent
and sees the document as the one before it left it. Who cannot wait (a circle of waiters, too long a line, too
long a wait) goes on without the intent; the commit decides. Intents only save work, they are not what keeps
documents right: they live in one process, and with several (on PostgreSQL) only the validation at commit
holds.

**An error ends the transaction**, as in MongoDB: what its program did not see succeed is not committed
around. Limits (LimitExceeded) are the exception, they leave it as it was. Unique indexes other than the one
on ``_id`` are checked by the commit.

**Nothing stays behind.** Transactions live in memory: when the process ends they are gone, and so is
everything that a client leaves when its time is up. Until then a silent one keeps nobody waiting: who stands
in line gets its intents after a few seconds.
"""
