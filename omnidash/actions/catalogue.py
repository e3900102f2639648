"""All actions by name."""

from __future__ import annotations

from omnidash.actions.backups import ACTIONS as OF_BACKUPS
from omnidash.actions.cleanup import CLEAN_UP
from omnidash.actions.records import ACTIONS as OF_RECORDS
from omnidash.actions.restore import ACTIONS as OF_WHOLE_STORES
from omnidash.actions.undo import PUT_BACK

ACTIONS = {
    action.name: action
    for action in (*OF_RECORDS, CLEAN_UP, PUT_BACK, *OF_BACKUPS, *OF_WHOLE_STORES)
}
