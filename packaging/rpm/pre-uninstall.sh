# Removed, and not replaced by a newer one.
if [ "$1" -eq 0 ] && [ -x /usr/bin/systemctl ]; then
    /usr/bin/systemctl --no-reload disable --now distwatch.service || :
fi
