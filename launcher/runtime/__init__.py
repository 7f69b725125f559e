"""What runs in the app's interpreter: the zygote and the workers."""
