"""Trust in kagent's certificate: the system's authorities, or those of one file. It cannot be switched off."""

import ssl

from khook.errors import SettingsError


def agent_tls(base_url: str, ca_file: str | None) -> ssl.SSLContext | None:
    """None for plain http. Raises SettingsError where the file holds no usable authority."""
    if not base_url.startswith("https://"):
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError([f"KAGENT_CA_FILE: {ca_file} cannot be used: {error}"]) from error
