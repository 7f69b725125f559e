"""
The app's configuration, from its declaration to its values: variables, secrets and templates.

Runs in the app's interpreter (the zygote or the preparer), never in the supervisor.  Each module is
imported by its own name: an app that declares nothing pays for nothing.
"""
