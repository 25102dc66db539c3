"""Reads documents of the cloud this function runs in, with the standard library only.

There is no Python SDK for these clouds. This is the request that the JavaScript SDKs send, as far as
reading needs it; the platform knows by the address who is calling, the key only has to be ours.
"""

import json
import os
import time
import urllib.request


class CloudError(Exception):
    """The cloud refused; `code` is its word for why."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code = code


def find(collection, query, *, order=None, projection=None, offset=0, limit=100):
    """The documents of `collection` that match, as dicts."""
    data = _call(
        "database.getDocument",
        collectionName=collection,
        queryType="WHERE",
        query=json.dumps(query),
        order=json.dumps(order) if order else None,
        projection=json.dumps(projection) if projection else None,
        offset=offset,
        limit=limit,
    )
    return [_plain(json.loads(document)) for document in data["list"]]


def _call(action, **parameters):
    body = {key: value for key, value in parameters.items() if value is not None}
    body.update(action=action, envName=os.environ.get("TCB_ENV") or os.environ["SCF_NAMESPACE"])
    url = json.loads(os.environ["TCB_CONTEXT_CNFG"])["URL"]
    day = time.strftime("%Y-%m-%d", time.gmtime())
    request = urllib.request.Request(
        url,
        data=json.dumps(body).encode(),
        headers={
            "content-type": "application/json",
            "authorization": "TC3-HMAC-SHA256 "
            f"Credential={os.environ['TENCENTCLOUD_SECRETID']}/{day}/tcb/tc3_request, "
            "SignedHeaders=content-type;host, Signature=0",
            "x-timestamp": str(int(time.time())),
        },
    )
    with urllib.request.urlopen(request, timeout=8) as response:
        reply = json.load(response)
    if reply.get("code"):
        raise CloudError(reply["code"], reply.get("message", ""))
    return reply["data"]


def _plain(value):
    """Extended JSON ({"$numberInt": "1"}, {"$date": …}) as ordinary values; dates as milliseconds."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, inner),) = value.items()
        if key in ("$numberInt", "$numberLong"):
            return int(inner)
        if key == "$numberDouble":
            return float(inner)
        if key == "$date":
            return _plain(inner)
        if key == "$oid":
            return inner
    return {key: _plain(item) for key, item in value.items()}
