"""The model hub, through huggingface_hub: its token, cache, endpoint and offline switch apply."""

from __future__ import annotations

from .base import MemcurveError, NotDescribed, nearest
from .config import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class HubError(MemcurveError):
    """The hub could not be asked, or does not give the file out."""

    exit_code = 1


def asked(repo_id: str, what: str, ask: Callable[[], Any], cached: Callable[[], Any]) -> Any:
    """What `ask` finds on the hub, or `cached` where the hub can't be reached.

    what: what is asked for, such as config.json. HubError without huggingface_hub, network, access or such a file.
    """
    from . import catalog

    hint = nearest(repo_id, catalog.names(), 1)
    hint = f"; nearest in the catalogue: {hint}" if hint else ""
    try:
        from huggingface_hub import errors as hub
    except ImportError:
        raise HubError(f"{repo_id} is not in the catalogue; to fetch it: pip install 'memcurve[hub]'{hint}") from None
    try:
        try:
            return ask()
        except (hub.HfHubHTTPError, hub.HFValidationError, MemcurveError):
            raise
        except Exception:  # noqa: BLE001 - transport errors, which share no base across versions: the cache answers or says so
            return cached()
    except hub.HFValidationError:
        raise NotDescribed(f"{repo_id} is no hub id and not in the catalogue{hint}") from None
    except hub.GatedRepoError:
        raise HubError(
            f"{repo_id} is gated: accept its terms on the hub and log in (hf auth login), or give a {what}"
        ) from None
    except hub.RepositoryNotFoundError:
        raise HubError(f"{repo_id} is not on the hub, or needs a token (hf auth login){hint}") from None
    except hub.LocalEntryNotFoundError:
        raise HubError(
            f"{repo_id} is not in the catalogue or the cache, and the hub can't be reached; give a {what}{hint}"
        ) from None
    except hub.EntryNotFoundError:
        raise HubError(f"{repo_id} holds no {what}; give one by path{hint}") from None
    except (OSError, hub.HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()
        raise HubError(
            f"{repo_id}: the hub can't be reached ({(reason or [type(error).__name__])[0][:120]}); give a {what}{hint}"
        ) from None


def fetch_config(repo_id: str) -> dict[str, Any]:
    """The config.json of a hub repository."""

    def ask() -> str:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

        # Asked once before the download, which would try for half a minute where there is no network.
        get_hf_file_metadata(hf_hub_url(repo_id, "config.json"))
        return hf_hub_download(repo_id, "config.json")

    def cached() -> str:
        from huggingface_hub import hf_hub_download

        return hf_hub_download(repo_id, "config.json", local_files_only=True)

    with open(asked(repo_id, "config.json", ask, cached), encoding="utf-8") as file:
        return parse(file.read(), repo_id)
