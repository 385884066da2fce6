"""A small Azure Key Vault and Entra ID on TLS, for tests and the demo.

As strict as the service, for the unmodified Azure SDK with `verify_challenge_resource` on: the 401
challenge names the vaults' parent domain, tokens are checked for tenant, audience and lifetime,
access policies hold per principal, and errors have the service's codes. Secrets only; service
principals with a client secret only.

As a program
    python -m provider.emulator --dir DIR --config FILE.yaml [--port N] [--address ADDRESS]

    serves until SIGTERM (exit 0, takes back what it wrote). `config` describes FILE.yaml: tenant,
    principals, vaults, access, first secrets. DIR then holds

    ca.pem         the authority to trust (`connection_verify`, `REQUESTS_CA_BUNDLE`)
    cloud.json     environment file for `cloudName: AzureStackCloud`
    hosts          hosts file with every name: login.<domain>, <vault>.vault.<domain>
    admin-token    mode 0600: who can read it may use the admin API
    emulator.json  written last, by rename: pid, address, port, url, ca_file, cloud_file,
                   hosts_file, admin_token_file, cloud_name, vault_domain, login_url, no_proxy,
                   vaults

    python -m provider.emulator.hosts --hosts-file DIR/hosts -- COMMAND…

    runs COMMAND in a mount namespace where these names resolve.

A client needs `connection_verify=ca_file` on credential and client, `authority=login_url` and
`disable_instance_discovery=True` (MSAL would otherwise ask login.microsoftonline.com about the
authority). Behind a proxy its NO_PROXY must contain `no_proxy`.

In a test
    with running(config) as emulator: …

    `emulator` is an `EmulatorClient`, as `EmulatorClient.from_dir(DIR)` is for the program:
    set_secret, enable, disable, delete, recover, grant, revoke, fault, clear_faults, request_log,
    reset_log, export_state, restore_state; port, url, ca_file, cloud_file, hosts_file, login_url,
    vaults.

State is in memory. After a restart the vaults hold what the configuration says, with new version
ids; a supervisor that wants more calls `export_state(beyond=revision, wait_seconds=…)`, which
waits for a change, keeps the answer in its own memory, and gives it to `restore_state` of the
successor. A successor has a new authority in the same `ca.pem`, unless `--ca-key-file` keeps the
old one's key; tokens that its predecessor issued at the same port stay valid.

In a pod
    args: [provider.emulator, --dir=/emulator, --config=…, --port=8443, --address=$(POD_IP),
           --ca-key-file=/keys/ca.pem]

    with the project's image, POD_IP from `status.podIP`, and /emulator and /keys writable; /keys is
    what has to outlive the pod. The names of `hosts` belong into the clients' `hostAliases`. It is
    a test tool: anything but loopback is for isolated networks only.
"""

from __future__ import annotations

from provider.emulator.client import EmulatorClient
from provider.emulator.config import (
    EmulatorConfig,
    PrincipalConfig,
    SecretConfig,
    VaultConfig,
)
from provider.emulator.errors import (
    CommandRefused,
    ConfigInvalid,
    EmulatorError,
    EmulatorUnavailable,
)
from provider.emulator.faults import FaultKind
from provider.emulator.local import running
from provider.emulator.requestlog import LogEntry
from provider.emulator.state import StateExport

__all__ = [
    "CommandRefused",
    "ConfigInvalid",
    "EmulatorClient",
    "EmulatorConfig",
    "EmulatorError",
    "EmulatorUnavailable",
    "FaultKind",
    "LogEntry",
    "PrincipalConfig",
    "SecretConfig",
    "StateExport",
    "VaultConfig",
    "running",
]
