"""Orders a certificate from an authority by ACME (RFC 8555), with certbot's library.

All of this blocks, so it runs in a thread. The account and its key are kept in a folder, for each authority its own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import requests
from acme import challenges, crypto_util, errors, messages
from acme.client import ClientNetwork, ClientV2
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC

from sfu import __version__
from sfu.process.private import write_private
from sfu.web.challenges import Challenges, IssueFailed

HTTP, TLS = "http-01", "tls-alpn-01"
NETWORK_S, ORDER_S = 30, 120
"""Longest wait for one response, and for the whole of an order."""
LONGEST = timedelta(days=7)
"""Longest Retry-After that is believed."""

for name in ("acme", "urllib3"):
    logging.getLogger(name).setLevel(logging.WARNING)  # below, they log whole messages, with the account's address


@challenges.ChallengeResponse.register
class TlsAlpnResponse(challenges.KeyAuthorizationChallengeResponse):
    """The response to TlsAlpn."""

    typ = TLS


@challenges.Challenge.register
class TlsAlpn(challenges.KeyAuthorizationChallenge):
    """The challenge of RFC 8737, which the library does not have."""

    response_cls = TlsAlpnResponse
    typ = TLS

    def validation(self, account_key: JWK, **_: Any) -> str:
        """What the certificate's extension has the digest of."""
        return self.key_authorization(account_key)


@dataclass
class Authority:
    """An authority, by the URL of its directory. `folder` gets the account; `ca_file` signs its own https."""

    directory: str
    folder: Path
    mail: str = ""
    ca_file: Path | None = None
    _retry_at: datetime | None = field(default=None, init=False)  # as of the last response

    def issue(self, domains: Sequence[str], kind: str, answers: Challenges) -> bytes:
        """A new key and a certificate with its chain for `domains`, in PEM. Raises IssueFailed.

        The authority checks each domain by a challenge of this kind, for which `answers` has what it looks for.
        """
        key = _pem(ec.generate_private_key(ec.SECP256R1()))
        try:
            client = self._client(registered=True)
            order = client.new_order(crypto_util.make_csr(key, list(domains)))
            self._answer(client, order, kind, answers)
            deadline = datetime.now() + timedelta(seconds=ORDER_S)  # noqa: DTZ005 -- as the library compares it
            return key + client.poll_and_finalize(order, deadline).fullchain_pem.encode()
        except Exception as error:
            raise self._failed(error) from error
        finally:
            answers.clear()

    def renewal(self, pem: bytes) -> datetime | None:
        """When the authority wants this certificate renewed (RFC 9773), if it says so. Raises IssueFailed."""
        try:
            return self._client(registered=False).renewal_time(pem)[0]
        except Exception as error:
            raise self._failed(error) from error

    def _answer(self, client: ClientV2, order: messages.OrderResource, kind: str, answers: Challenges) -> None:
        """Has the answers ready, and says so."""
        open_ones = [one for one in order.authorizations if one.body.status != messages.STATUS_VALID]
        found = []
        for authorization in open_ones:
            domain = authorization.body.identifier.value
            body = next((body for body in authorization.body.challenges if body.chall.typ == kind), None)
            if body is None:
                raise IssueFailed("no_challenge", f"The authority does not offer {kind} for {domain}.")
            response, answer = body.chall.response_and_validation(client.net.key)
            if kind == TLS:
                answers.present(domain, answer)
            else:
                answers.publish(body.chall.encode("token"), answer)
            found.append((body, response))
        for body, response in found:
            client.answer_challenge(body, response)

    def _client(self, *, registered: bool) -> ClientV2:
        """A client of the authority; if it is to be `registered`, with an account that the authority knows."""
        self._retry_at = None
        account = self._account()
        key = JWKEC.load(account["key"].encode())
        agent = f"sfu/{__version__}"
        network = ClientNetwork(key, alg=ES256, user_agent=agent, timeout=NETWORK_S)
        if self.ca_file is not None:
            network.verify_ssl = str(self.ca_file)  # type: ignore[assignment]  # requests takes a path, too
        network.session.hooks["response"].append(self._note)
        client = ClientV2(messages.Directory.from_json(network.get(self.directory).json()), network)
        if registered:
            self._register(client, account)
        return client

    def _register(self, client: ClientV2, account: dict[str, str]) -> None:
        """Makes the account, with agreement to the authority's terms, or takes the one of this key."""
        contact = messages.NewRegistration.from_data(email=self.mail or None, terms_of_service_agreed=True)
        if account.get("uri") and account.get("mail") == self.mail:
            client.net.account = messages.RegistrationResource(body=messages.Registration(), uri=account["uri"])
            return
        try:
            uri = client.new_account(contact).uri
        except errors.ConflictError as known:
            uri = known.location
            found = messages.RegistrationResource(body=messages.Registration(), uri=uri)
            client.update_registration(found, messages.Registration(contact=contact.contact))
        self._keep(account | {"uri": uri, "mail": self.mail})

    def _account(self) -> dict[str, str]:
        """The account as it is kept, with a key that is made if there is none."""
        try:
            return dict(json.loads(self._file.read_bytes()))
        except FileNotFoundError:
            account = {"key": _pem(ec.generate_private_key(ec.SECP256R1())).decode()}
            self._keep(account)
            return account
        except ValueError as error:
            raise IssueFailed("storage", f"{self._file} is not the account that was written: {error}") from None

    def _keep(self, account: dict[str, str]) -> None:
        write_private(self._file, json.dumps(account, indent=1).encode() + b"\n")

    @property
    def _file(self) -> Path:
        return self.folder / "account.json"

    def _note(self, response: requests.Response, *_: Any, **__: Any) -> None:
        """Remembers when the authority wants to be asked again: the library keeps no header of a refusal."""
        text = response.headers.get("Retry-After", "") if not response.ok else ""
        now = datetime.now(UTC)
        try:
            wanted = now + timedelta(seconds=int(text)) if text.isdigit() else parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            self._retry_at = None
        else:
            wanted = wanted if wanted.tzinfo else wanted.replace(tzinfo=UTC)
            self._retry_at = min(wanted, now + LONGEST)

    def _failed(self, error: Exception) -> IssueFailed:
        """What went wrong, as one exception."""
        found: Any = error
        if isinstance(error, errors.ValidationError):
            found = next(
                (body.error for one in error.failed_authzrs for body in one.body.challenges if body.error), error
            )
        elif isinstance(error, errors.IssuanceError):
            found = error.error
        elif isinstance(error, errors.ARIError):
            found = error.__cause__
        match found:
            case IssueFailed():
                return found
            case messages.Error():
                code = str(found.typ).rpartition(":")[2]
                if code == "accountDoesNotExist":
                    self._keep(self._account() | {"uri": ""})
                return IssueFailed(code, found.detail or found.title or code, self._retry_at)
            case errors.TimeoutError():
                return IssueFailed("timeout", f"The authority did not finish within {ORDER_S} s.")
            case requests.exceptions.SSLError():
                return IssueFailed("untrusted", _reason(found))
            case requests.exceptions.RequestException():
                return IssueFailed("unreachable", _reason(found))
            case OSError():
                return IssueFailed("storage", str(found))
            case _:
                return IssueFailed("unexpected", repr(found), self._retry_at)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, pkcs8, plain)


def _reason(error: BaseException) -> str:
    """The innermost reason: requests and urllib3 wrap each other's exceptions."""
    while True:
        inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        if not isinstance(inner, BaseException):
            return str(error)
        error = inner
