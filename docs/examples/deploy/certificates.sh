#!/bin/sh
# Make certificates for a server and its clients, in the current directory:
#   sh certificates.sh SERVER_NAME CLIENT_NAME...
# An authority that is there already is used again, so that clients can be added later.
set -eu
umask 077  # keys are for their owner alone

server=$1
shift
days=825
key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"

# An authority of its own: whoever it signs for may come in.  Keep ca.key off the servers.
if [ ! -e ca.key ]; then
    openssl req -x509 $key -keyout ca.key -out ca.pem -days 3650 -subj "/CN=shop jobs CA" \
        -addext "keyUsage=critical,keyCertSign,cRLSign"
fi

# sign NAME PURPOSE ALTERNATIVE_NAMES
sign() {
    openssl req $key -keyout "$1.key" -out "$1.csr" -subj "/CN=$1"
    cat >"$1.ext" <<END
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=$2
subjectAltName=$3
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
END
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days $days \
        -extfile "$1.ext" -out "$1.pem"
    rm "$1.csr" "$1.ext"
}

[ -e "$server.key" ] || sign "$server" serverAuth "DNS:$server"
for client; do
    sign "$client" clientAuth "DNS:$client"
done
