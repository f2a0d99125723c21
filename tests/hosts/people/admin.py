from django.contrib import admin

from tests.hosts.people.models import Person


@admin.register(Person)
class PersonAdmin(admin.ModelAdmin):
    search_fields = ("username",)
