"""What runs in the app's interpreter: zygote and workers."""
