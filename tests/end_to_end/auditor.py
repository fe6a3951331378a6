"""What an auditor gets from a running stack, and what the verifier says about it."""

import time
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from attacks.evidence import Given, Signer
from attacks.judge import judge
from tests.end_to_end.conftest import Client


def eventually(client: Client, path: str, *, text: bool = False) -> Any:
    """What is there, once the beat has signed it."""
    deadline = time.monotonic() + 60
    while (response := client.http.get(path)).status_code != 200:
        assert response.status_code == 409, response.text
        assert time.monotonic() < deadline, response.text
        time.sleep(0.2)
    return response.text if text else response.json()


def bundle_of(client: Client, request_id: str, since: object = 1) -> dict[str, Any]:
    """The bundle, once a checkpoint covers the issuing of its certificate."""
    path = f"/v1/audit/bundle?request={request_id}&since={since}"
    return client.wait(path, lambda bundle: bundle["certificate"] is not None, timeout_s=60)


def signer_of(client: Client) -> Signer:
    """The key of the stack's audit trail."""
    private = (client.home.state / "signing-key.pem").read_bytes()
    origin = eventually(client, "/v1/audit/checkpoint", text=True).partition("\n")[0]
    return Signer(origin, load_pem_private_key(private, None))


def verified(client: Client, where: str) -> tuple[int, str]:
    """The verifier's exit status for a request, and its reason."""
    bundle = bundle_of(client, where.rpartition("/")[2])
    return judge(Given(bundle, (signer_of(client).text,), None))
