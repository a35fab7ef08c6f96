for who in "$PID" "$GATEWAY"; do
    attempt "find process $([ "$who" = "$PID" ] && say of the host || say gateway) by a signal" kill -0 "$who"
done
