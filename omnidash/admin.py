"""People and groups in Django's admin, behind our door: nothing else is registered there."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from django.contrib.auth.models import Group, Permission, User
from django.core.exceptions import PermissionDenied
from django.db.models import ManyToManyField, QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from omnidash import roles
from omnidash.sudo import require_recent
from omnidash.views import door

View = Callable[..., HttpResponseBase]


class Site(admin.AdminSite):
    """Who may see the people comes in, whatever their `is_staff` says: a role that was taken away
    leaves no flag behind. Login, logout and the own password are the dashboard's."""

    site_title = site_header = "OmniDash"
    index_title = "People and groups"
    enable_nav_sidebar = False
    final_catch_all_view = False

    def has_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.has_perm("auth.view_user"))

    def admin_view(self, view: View, cacheable: bool = False) -> View:  # type: ignore[override]
        inner = super().admin_view(view, cacheable)

        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not self.has_permission(request):
                raise PermissionDenied
            return require_recent(request) or inner(request, *args, **kwargs)

        return update_wrapper(guarded, inner)

    def login(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return redirect("admin:index")

    def logout(self, request: HttpRequest, extra_context: Any = None) -> HttpResponseBase:  # type: ignore[override]
        return door.logout(request)

    def password_change(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:  # type: ignore[override]
        return redirect("password")

    def password_change_done(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:  # type: ignore[override]
        return redirect("password-changed")


class PersonForm(UserChangeForm):
    """Refuses to leave nobody who could manage the people."""

    def clean(self) -> dict[str, Any]:
        new = super().clean() or self.cleaned_data
        stays = new.get("is_active", self.instance.is_active) and (
            new.get("is_superuser", self.instance.is_superuser)
            or any(group.name == roles.ADMINISTRATOR for group in new.get("groups", []))
        )
        if not stays and roles.is_last_administrator(self.instance):
            raise forms.ValidationError("This is the last active administrator: name another one.")
        return new


class PasswordForm(AdminPasswordChangeForm):
    """Without the choice of having none, with which nobody could log in."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields.pop("usable_password", None)
        for name in ("password1", "password2"):
            self.fields[name].required = True


class PersonAdmin(UserAdmin):
    """A superuser is out of reach for whoever is none, and permissions come with a group only."""

    actions = None  # they would pass by the last administrator
    form = PersonForm
    add_form = UserCreationForm
    change_password_form = PasswordForm
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Role", {"fields": ("is_active", "groups", "is_superuser")}),
        ("Times", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = (
        (None, {"classes": ("wide",), "fields": ("username", "password1", "password2", "groups")}),
    )
    list_display = ("username", "roles", "is_active", "is_superuser", "last_login")
    list_filter = ("is_active", "groups")
    search_fields = ("username",)
    filter_horizontal = ()
    readonly_fields = ("last_login", "date_joined")

    @admin.display(description="Groups")
    def roles(self, user: User) -> str:
        return ", ".join(sorted(group.name for group in user.groups.all()))

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return super().get_queryset(request).prefetch_related("groups")

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        fixed = super().get_readonly_fields(request, obj)
        return fixed if request.user.is_superuser else (*fixed, "is_superuser")

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        allowed = super().has_delete_permission(request, obj) and _may_touch(request, obj)
        return allowed and (obj is None or not roles.is_last_administrator(obj))

    def formfield_for_manytomany(
        self, db_field: ManyToManyField, request: HttpRequest, **kwargs: Any
    ) -> Any:
        kwargs["widget"] = forms.CheckboxSelectMultiple
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    @method_decorator(sensitive_post_parameters())
    def user_change_password(
        self, request: HttpRequest, id: str, form_url: str = ""
    ) -> HttpResponse:
        if id == str(request.user.pk):  # one's own needs the old one too
            return redirect("password")
        return super().user_change_password(request, id, form_url)


def _may_touch(request: HttpRequest, obj: User | None) -> bool:
    return obj is None or not obj.is_superuser or request.user.is_superuser


class RoleAdmin(GroupAdmin):
    """The roles keep their names, and the administrators what they may do, or nobody could give it
    back; other groups are free."""

    actions = None
    filter_horizontal = ()

    def get_readonly_fields(self, request: HttpRequest, obj: Group | None = None) -> Any:
        if obj is None or obj.name not in roles.ROLES:
            return ()
        return ("name", "permissions") if obj.name == roles.ADMINISTRATOR else ("name",)

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        allowed = super().has_delete_permission(request, obj)
        return allowed and (obj is None or obj.name not in roles.ROLES)

    def formfield_for_manytomany(
        self, db_field: ManyToManyField, request: HttpRequest | None = None, **kwargs: Any
    ) -> Any:
        every = roles.PERMISSIONS[roles.ADMINISTRATOR]
        kwargs["queryset"] = Permission.objects.filter(
            codename__in=every, content_type__app_label__in=("auth", "omnidash")
        )
        kwargs["widget"] = forms.CheckboxSelectMultiple
        field: Any = super().formfield_for_manytomany(db_field, request, **kwargs)
        field.label_from_instance = lambda permission: permission.name
        return field


site = Site(name="admin")
site.register(User, PersonAdmin)
site.register(Group, RoleAdmin)
