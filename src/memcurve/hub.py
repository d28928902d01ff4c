"""Configs from the model hub, through huggingface_hub: its token, cache, endpoint and offline switch apply."""

from __future__ import annotations

from .base import MemcurveError, NotDescribed, nearest
from .config import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class HubError(MemcurveError):
    """The hub could not be asked, or does not give the file out."""

    exit_code = 1


def fetch_config(repo_id: str) -> dict[str, Any]:
    """The config.json of a hub repository. HubError without huggingface_hub, network, access or such a file."""
    from . import catalog

    hint = nearest(repo_id, catalog.names(), 1)
    hint = f"; nearest in the catalogue: {hint}" if hint else ""
    try:
        from huggingface_hub import errors as hub
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    except ImportError:
        raise HubError(f"{repo_id} is not in the catalogue; to fetch it: pip install 'memcurve[hub]'{hint}") from None
    try:
        # Asked once before the download, which would try for half a minute where there is no network.
        try:
            get_hf_file_metadata(hf_hub_url(repo_id, "config.json"))
            reached = True
        except (hub.HfHubHTTPError, hub.HFValidationError):
            raise
        except Exception:  # noqa: BLE001 - transport errors, which share no base across versions: the cache answers or says so
            reached = False
        path = hf_hub_download(repo_id, "config.json", local_files_only=not reached)
    except hub.HFValidationError:
        raise NotDescribed(f"{repo_id} is no hub id and not in the catalogue{hint}") from None
    except hub.GatedRepoError:
        raise HubError(
            f"{repo_id} is gated: accept its terms on the hub and log in (hf auth login), or give a config.json"
        ) from None
    except hub.RepositoryNotFoundError:
        raise HubError(f"{repo_id} is not on the hub, or needs a token (hf auth login){hint}") from None
    except hub.LocalEntryNotFoundError:
        raise HubError(
            f"{repo_id} is not in the catalogue or the cache, and the hub can't be reached; give a config.json{hint}"
        ) from None
    except hub.EntryNotFoundError:
        raise HubError(f"{repo_id} holds no config.json; give one by path{hint}") from None
    except (OSError, hub.HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()
        raise HubError(
            f"{repo_id}: the hub can't be reached ({(reason or [type(error).__name__])[0][:120]}); give a config.json{hint}"
        ) from None
    with open(path, encoding="utf-8") as file:
        return parse(file.read(), repo_id)
