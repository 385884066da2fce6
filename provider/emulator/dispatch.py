"""Which service answers a request: by host name, and what fault strikes it first."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs
import trio

from provider.emulator import admin, entra, keyvault
from provider.emulator.errors import ServiceError
from provider.emulator.faults import Fault, FaultKind
from provider.emulator.messages import Ending, Reply, Request
from provider.emulator.requestlog import Trace

if TYPE_CHECKING:
    from provider.emulator.state import EmulatorState, HostedVault

log = logging.getLogger(__name__)

THROTTLED = (
    "Request was not processed because too many requests were received. Reason:"
    " VaultRequestTypeLimitReached"
)


@attrs.frozen(kw_only=True)
class Dispatcher:
    """Answers every request that the HTTP layer reads."""

    state: EmulatorState
    admin_token: str = attrs.field(repr=False)

    async def respond(self, request: Request) -> Reply:
        """Return the reply to one request; no error leaves."""
        try:
            return await self._respond(request)
        except Exception:  # a defect of ours must not end the other connections
            log.exception("request failed")
            return Reply.error(ServiceError(500, "InternalServerError", "See the emulator's log."))

    async def _respond(self, request: Request) -> Reply:
        if request.host in {self.state.address, "localhost"}:
            return await self._admin(request)
        trace = Trace()
        if request.host == self.state.login_host:
            reply = await self._login(request, trace)
        else:
            reply = await self._vault(request, trace)
        self.state.log.add(trace, 0 if reply.ending is Ending.RESET else reply.status)
        return reply

    async def _admin(self, request: Request) -> Reply:
        if not request.path.startswith(admin.PREFIX):
            return Reply.json(404, {"error": "vaults and sign-in answer to their host names"})
        if not admin.authorized(request, self.admin_token):
            return Reply.json(401, {"error": "the admin token is missing or wrong"})
        if request.method != "POST":
            return Reply.json(405, {"error": "use POST"}, (("Allow", "POST"),))
        return await admin.respond(self.state, request)

    async def _login(self, request: Request, trace: Trace) -> Reply:
        trace.kind = entra.kind_of(request)
        fault = self.state.faults.take(trace)
        struck = await _strike(fault) if fault else None
        if struck is not None:
            return struck
        return _finish(entra.respond(self.state, request, trace), fault)

    async def _vault(self, request: Request, trace: Trace) -> Reply:
        fault = None
        try:
            hosted = self._hosted(request)
            trace.vault = hosted.name
            call = keyvault.Call(state=self.state, hosted=hosted, request=request)
            call, operation = keyvault.route(call, trace)
            principal = keyvault.authenticate(call, trace)
            fault = self.state.faults.take(trace)  # a challenge may be struck too, if asked for
            struck = await _strike(fault) if fault else None
            reply = struck or keyvault.execute(call, operation, principal)
        except ServiceError as error:
            reply = Reply.error(error)
        headers = (*reply.headers, *keyvault.service_headers(request))
        return _finish(attrs.evolve(reply, headers=headers), fault)

    def _hosted(self, request: Request) -> HostedVault:
        name, _, domain = request.host.partition(".")
        hosted = self.state.vaults.get(name)
        if hosted is None or domain != self.state.vault_domain:
            raise ServiceError(404, "VaultNotFound", f"No vault answers to {request.host}.")
        return hosted


async def _strike(fault: Fault) -> Reply | None:
    """Return the reply that a fault puts in place of the real one, if it does."""
    if fault.kind is FaultKind.SLOW:
        await trio.sleep(fault.seconds)
        return None
    if fault.kind is FaultKind.RESET:
        return Reply(status=503, ending=Ending.RESET)
    if fault.kind is FaultKind.THROTTLE:
        seconds = fault.retry_after
        headers = () if seconds is None else (("Retry-After", str(seconds)),)
        return Reply.error(ServiceError(429, "Throttled", THROTTLED, headers=headers))
    if fault.kind is FaultKind.ERROR:
        message = "An internal error occurred. Please retry."
        return Reply.error(ServiceError(fault.status, "InternalServerError", message))
    return None


def _finish(reply: Reply, fault: Fault | None) -> Reply:
    if fault is not None and fault.kind is FaultKind.TRUNCATE:
        return attrs.evolve(reply, ending=Ending.TRUNCATE)
    return reply
