"""Writes one document and says exactly what the platform answered."""

import http.client
import json
import os
import time
import urllib.request


def main_handler(event, context):
    try:
        reply = insert(event["id"])
    except (OSError, http.client.HTTPException, ValueError) as error:
        # The connection broke: whether the document was written is not known here.
        return {"success": False, "code": "CONNECTION", "message": repr(error)}
    if reply.get("code"):
        return {"success": False, "code": reply["code"], "message": reply.get("message", "")}
    return {"success": True}


def insert(document):
    body = {
        "action": "database.insertDocument",
        "envName": os.environ.get("TCB_ENV") or os.environ["SCF_NAMESPACE"],
        "collectionName": "notes",
        "data": [json.dumps({"_id": document})],
    }
    day = time.strftime("%Y-%m-%d", time.gmtime())
    request = urllib.request.Request(
        json.loads(os.environ["TCB_CONTEXT_CNFG"])["URL"],
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
        return json.load(response)
