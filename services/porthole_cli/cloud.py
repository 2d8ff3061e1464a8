# SPDX-License-Identifier: Apache-2.0
"""Finds the cloud as OpenStack's clients do, and opens a keystoneauth adapter to its compute API.

Why two libraries: users have OS_* variables or a clouds.yaml already. keystoneauth1 reads variables and flags in a
sixth of a second. Only openstacksdk reads clouds.yaml; its import takes twice as long, so it is imported only when a
cloud is named. Called by :mod:`porthole_cli.main`.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

from keystoneauth1 import adapter, discover, exceptions, loading, noauth

from porthole_cli.cloud_session import CloudSession, CloudSessionLoading
from porthole_cli.errors import CloudInvalid

DEFAULT_ENDPOINT = "http://127.0.0.1:8774/v2.1"
# Seconds that all requests of a command may take; keystoneauth's own 600 are longer than a user waits.
TIMEOUT_S = 60.0

# openstacksdk names neither the places that it searched nor a file that it skipped.
_SEARCHED = (
    "clouds.yaml is searched in this directory, in ~/.config/openstack and in /etc/openstack, or is the file in "
    "OS_CLIENT_CONFIG_FILE; a file that is not YAML is ignored"
)

OpenCloud = Callable[[argparse.Namespace], adapter.Adapter]


def register_options(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Add the options that choose the cloud; :func:`open_cloud` takes the result of ``parser``.

    The options depend on the cloud and the authentication type, so these are read from ``argv`` first.

    :raises CloudInvalid: when the cloud or the authentication type is unknown.
    """
    register = _register_named_cloud if _find_cloud_name(argv) else _register_environment
    parser.set_defaults(open_cloud=register(parser, argv))
    # Options of the openstack client that neither library has; users set them for every program.
    parser.add_argument(
        "--verify",
        dest="insecure",
        action="store_false",
        default=argparse.SUPPRESS,
        help="Check the server's certificate. This is the default; the opposite is --insecure.",
    )
    parser.add_argument(
        "--os-identity-api-version",
        metavar="<identity-api-version>",
        help="Ignored: Keystone itself says which versions it has.",
    )


def open_cloud(options: argparse.Namespace | None) -> adapter.Adapter:
    """Return an adapter to the compute API of the cloud in ``options``; no request is made yet.

    :raises CloudInvalid: when the authentication needs something that is missing.
    """
    # cliff types the global options of a command as optional; within an App they are always set.
    if options is None:
        raise CloudInvalid("No options: the command runs outside the porthole program.")
    opener: OpenCloud = options.open_cloud
    return opener(options)


def _find_cloud_name(argv: Sequence[str]) -> str | None:
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("--os-cloud", default=os.environ.get("OS_CLOUD"))
    name: str | None = peek.parse_known_args(list(argv))[0].os_cloud
    return name


def _register_named_cloud(parser: argparse.ArgumentParser, argv: Sequence[str]) -> OpenCloud:
    # Only here: see the module's docstring.
    from openstack import config as openstack_config  # noqa: PLC0415
    from openstack import exceptions as openstack_exceptions  # noqa: PLC0415
    from openstack.config import loader  # noqa: PLC0415

    from porthole_cli.clouds_file import check_clouds_files  # noqa: PLC0415

    name = _find_cloud_name(argv)
    for variable, paths in (
        ("OS_CLIENT_CONFIG_FILE", loader.CONFIG_FILES),
        ("OS_CLIENT_SECURE_FILE", loader.SECURE_FILES),
    ):
        check_clouds_files([*filter(None, [os.environ.get(variable)]), *paths], name or "")
    try:
        finder = openstack_config.OpenStackConfig(session_constructor=CloudSession)
        finder.register_argparse_arguments(parser, list(argv), service_keys=["compute"])
    except openstack_exceptions.ConfigException as exc:
        raise CloudInvalid(f"{exc} ({_SEARCHED})") from exc

    def open_named_cloud(options: argparse.Namespace) -> adapter.Adapter:
        try:
            region = finder.get_one(argparse=options)
            session = region.get_session()
        except (openstack_exceptions.ConfigException, exceptions.ClientException) as exc:
            raise CloudInvalid(str(exc)) from exc
        session.timeout = session.timeout or TIMEOUT_S
        version = options.os_compute_api_version or region.get_default_microversion("compute")
        return adapter.Adapter(
            session,
            service_type=region.get_service_type("compute"),
            service_name=region.get_service_name("compute"),
            interface=region.get_interface("compute"),
            region_name=region.get_region_name("compute"),
            endpoint_override=region.get_endpoint("compute"),
            default_microversion=_find_microversion(version),
        )

    return open_named_cloud


def _register_environment(parser: argparse.ArgumentParser, argv: Sequence[str]) -> OpenCloud:
    environ = os.environ
    parser.add_argument(
        "--os-cloud", metavar="<name>", help="Cloud of clouds.yaml to connect to. Defaults to env[OS_CLOUD]."
    )
    try:
        auth_type = _find_auth_type(argv)
        plugin: loading.BaseLoader[Any] | None
        plugin = loading.register_auth_argparse_arguments(parser, list(argv), default=auth_type)
    except exceptions.NoMatchingPlugin as exc:
        raise CloudInvalid(str(exc)) from exc
    loading.register_session_argparse_arguments(parser)
    service = parser.add_argument_group("Compute API Options")
    for name, text in (
        ("interface", "Interface of the catalog to use: public, internal or admin."),
        ("region-name", "Region of the catalog to use."),
        ("compute-endpoint-override", "URL to use instead of the catalog's."),
        ("compute-api-version", "Microversion to use. Unset: the oldest one that has the request."),
    ):
        variable = "OS_" + name.upper().replace("-", "_")
        service.add_argument(
            f"--os-{name}",
            metavar=f"<{name}>",
            default=environ.get(variable),
            help=f"{text} Defaults to env[{variable}].",
        )
    parser.set_defaults(timeout=TIMEOUT_S)
    if plugin is not None and plugin.plugin_class is noauth.NoAuth and not environ.get("OS_ENDPOINT"):
        parser.set_defaults(os_endpoint=DEFAULT_ENDPOINT)
    return _open_environment


def _find_auth_type(argv: Sequence[str]) -> str:
    """Return the authentication type to use when neither a variable nor a flag names one.

    An auth URL means Keystone: with a token if one is given, else with a password. Without an auth URL: none.
    """
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("--os-auth-url", default=os.environ.get("OS_AUTH_URL"))
    peek.add_argument("--os-token", default=os.environ.get("OS_TOKEN"))
    options, _ = peek.parse_known_args(list(argv))
    if not options.os_auth_url:
        return "none"
    return "token" if options.os_token else "password"


def _open_environment(options: argparse.Namespace) -> adapter.Adapter:
    for name in ("os_endpoint", "os_auth_url", "os_compute_endpoint_override"):
        # A shell that sources a file with CRLF puts a carriage return at the end of a value.
        if isinstance(url := getattr(options, name, None), str):
            setattr(options, name, url.strip())
    try:
        auth = loading.load_auth_from_argparse_arguments(options)
        session = CloudSessionLoading().load_from_argparse_arguments(options, auth=auth)
    except exceptions.ClientException as exc:
        raise CloudInvalid(str(exc)) from exc
    return adapter.Adapter(
        session,
        service_type="compute",
        interface=options.os_interface or "public",
        region_name=options.os_region_name,
        endpoint_override=options.os_compute_endpoint_override,
        default_microversion=_find_microversion(options.os_compute_api_version),
    )


def _find_microversion(text: str | None) -> str | None:
    """Return the microversion in ``text``, in the form of keystoneauth.

    OpenStack's clients write "2" for no particular one and "2.latest" for keystoneauth's "latest".

    :raises CloudInvalid: when ``text`` is not a microversion.
    """
    if text in (None, "", "2"):
        return None
    if text == "2.latest":
        return "latest"
    try:
        discover.normalize_version_number(text)
    except TypeError as exc:
        raise CloudInvalid(f"'{text}' is not a microversion: 2.6 would be one.") from exc
    return text
