"""The two ways in: from outside with a TC3 signature, or through an instance's own socket."""

from __future__ import annotations

from cloudlet.auth.tc3 import SignedRequest, credential_id, verify_tc3
from cloudlet.dialects.a.envelope import Envelope, Members
from cloudlet.dialects.callers import Caller, InstanceIdentity, caller_of_token, check_environment
from cloudlet.dialects.http import Request, query_values
from cloudlet.model.clock import Clock
from cloudlet.model.errors import Internal
from cloudlet.model.identity import Identity
from cloudlet.model.invocation import CLIENT_IP
from cloudlet.state.base import EnvironmentRecords


class OutsideEntrance:
    """Callers that hold an environment's key pair. They act as its server side, for no user."""

    def __init__(self, records: EnvironmentRecords, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    def caller(self, request: Request, envelope: Envelope, members: Members) -> Caller:
        """Raise SignatureInvalid, EnvironmentMismatch or EnvironmentNotFound."""
        environment = self._signer(request, members)
        check_environment(
            self._records, environment, envelope.envName or "", *query_values(request.query, "env")
        )
        # Who signs holds the key, but is no function: its word about users is not taken.
        return Caller(Identity(environment, admin=True), client_ip=request.headers.get(CLIENT_IP, ""))

    def _signer(self, request: Request, members: Members) -> str:
        signed = SignedRequest(
            request.method,
            request.headers.get("host", ""),
            request.raw_path,
            request.query,
            request.headers,
            members,
        )
        secret_id = verify_tc3(signed, self._secret_key, self._clock.now())
        credential = self._records.find_credential(secret_id)
        if credential is None:
            raise Internal("a credential vanished while its signature was checked")
        return credential.environment

    def _secret_key(self, secret_id: str) -> str | None:
        credential = self._records.find_credential(secret_id)
        return credential.secret_key if credential else None


class InstanceEntrance:
    """Calls that arrive on the platform socket of one instance.

    The socket says who speaks, so the instance's own credential needs no check; any other is checked in full,
    and then counts as a caller from outside.
    """

    def __init__(
        self, instance: InstanceIdentity, outside: OutsideEntrance, records: EnvironmentRecords
    ) -> None:
        self._instance = instance
        self._outside = outside
        self._records = records

    def caller(self, request: Request, envelope: Envelope, members: Members) -> Caller:
        """Raise SignatureInvalid, Unauthenticated, EnvironmentMismatch or EnvironmentNotFound."""
        if credential_id(request.headers.get("authorization", "")) != self._instance.secret_id:
            return self._outside.caller(request, envelope, members)
        own = self._instance.environment
        check_environment(self._records, own, envelope.envName or "", *query_values(request.query, "env"))
        return caller_of_token(envelope.wxCloudApiToken or envelope.tcb_sessionToken or "", self._instance)
