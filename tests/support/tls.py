"""A self-signed certificate for tests alone: authority, server (DNS name api.khook.test) and client in one.

Made by `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500`; kept here because a
machine that runs the tests may have no openssl. The key protects nothing.
"""

SERVER_NAME = "api.khook.test"

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBnzCCAUSgAwIBAgIUAkYgF6v86JwbdoLupQ1bUKeqFsMwCgYIKoZIzj0EAwIw
FjEUMBIGA1UEAwwLa2hvb2sgdGVzdHMwIBcNMjYxMTIzMTUwMDEyWhgPMjEyNjEw
MzAxNTAwMTJaMBYxFDASBgNVBAMMC2tob29rIHRlc3RzMFkwEwYHKoZIzj0CAQYI
KoZIzj0DAQcDQgAElWXdwXa2KYc2C5jr7M0Mn7RkatnZHjkGsEWfSq164QBnR4Ml
8nwum7z6S05aZ7Yj96SxAxjmmuMnZBSZQag9w6NuMGwwHQYDVR0OBBYEFJesBKk5
kyAf4ERZxHh98lFzgO4LMB8GA1UdIwQYMBaAFJesBKk5kyAf4ERZxHh98lFzgO4L
MBkGA1UdEQQSMBCCDmFwaS5raG9vay50ZXN0MA8GA1UdEwEB/wQFMAMBAf8wCgYI
KoZIzj0EAwIDSQAwRgIhAPNC9K1c7WdjNfocpOtPN2xTBRZYrD62ntfgNY5hR5pY
AiEAl857xQ06KciueweQLRTCcY3efu0uHGCCesoKNto+OmY=
-----END CERTIFICATE-----
"""

KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg3A3dkaSlxfVeyskI
xfHCNB/y37G2TEBJI/PxMip/tK6hRANCAASVZd3BdrYphzYLmOvszQyftGRq2dke
OQawRZ9KrXrhAGdHgyXyfC6bvPpLTlpntiP3pLEDGOaa4ydkFJlBqD3D
-----END PRIVATE KEY-----
"""
