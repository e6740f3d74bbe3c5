# Enabled as the distribution's presets say, on the first installation only.
if [ "$1" -eq 1 ] && [ -x /usr/bin/systemctl ]; then
    /usr/bin/systemctl --no-reload preset distwatch.service || :
fi
