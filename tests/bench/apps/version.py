"""The version of the app: a reload replaces this file."""

VERSION = 1
