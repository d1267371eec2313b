"""A real SMTP server for the lab, with the faults that real ones have.

Its one argument is a JSON object, see `Options` in smtp.rs. Every mail becomes a file NNNN.json in its
directory, every login an entry of `logins`.
"""

import asyncio
import email
import email.policy
import json
import os
import ssl
import sys
import time

from aiosmtpd.smtp import SMTP, AuthResult

OPTIONS = json.loads(sys.argv[1])
DIRECTORY = OPTIONS["directory"]
COUNTS = {"mails": 0, "deferred": 0}


def encrypted(server):
    return server.transport.get_extra_info("ssl_object") is not None


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in OPTIONS["refuse"]:
            return "550 5.1.1 no such user here"
        if address in OPTIONS["defer"] and COUNTS["deferred"] < OPTIONS["defer_times"]:
            COUNTS["deferred"] += 1
            return "451 4.7.1 greylisted, try again later"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server, session, envelope):
        if OPTIONS["refuse_data"]:
            return "554 5.7.1 this looks like spam"
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        parts = {part.get_content_type(): part.get_content() for part in message.walk() if not part.is_multipart()}
        COUNTS["mails"] += 1
        name = os.path.join(DIRECTORY, f"{COUNTS['mails']:04}")
        mail = {
            "at": time.time(),
            "peer": session.peer[0],
            "hello": session.host_name,
            "tls": encrypted(server),
            "user": session.auth_data,
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "subject": message["Subject"],
            "header_to": message["To"],
            "type": message.get_content_type(),
            "plain": parts.get("text/plain", ""),
            "html": parts.get("text/html", ""),
        }
        with open(name + ".part", "w") as file:
            json.dump(mail, file)
        os.rename(name + ".part", name + ".json")
        return "250 2.0.0 queued"


class Server(SMTP):
    async def _handle_client(self):
        # Accepts, and says nothing for a while: a tarpit.
        with open(os.path.join(DIRECTORY, "connections"), "a") as file:
            file.write(f"{time.time()}\n")
        await asyncio.sleep(OPTIONS["tarpit"])
        await super()._handle_client()

    async def smtp_EHLO(self, hostname):
        if OPTIONS["mute"]:
            await asyncio.Event().wait()
        await super().smtp_EHLO(hostname)


def authenticate(server, session, envelope, mechanism, data):
    user, password = data.login.decode(), data.password.decode()
    with open(os.path.join(DIRECTORY, "logins"), "a") as file:
        file.write(f"{user} {mechanism} {'tls' if encrypted(server) else 'plain'}\n")
    if [user, password] == OPTIONS["login"]:
        return AuthResult(success=True, auth_data=user)
    message = "535 5.7.8 bad credentials"
    if OPTIONS["quote"]:
        message = f"535 5.7.8 {user} with {password}? no"
    return AuthResult(success=False, handled=False, message=message)


async def main():
    context = None
    if OPTIONS["tls"] != "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(OPTIONS["certificate"], OPTIONS["key"])
    login = OPTIONS["login"] is not None

    def serve():
        return Server(
            Handler(),
            hostname="mail.example",
            tls_context=context if OPTIONS["tls"] == "starttls" else None,
            authenticator=authenticate if login else None,
            auth_required=login,
            auth_require_tls=OPTIONS["tls"] == "starttls",
        )

    implicit = context if OPTIONS["tls"] == "implicit" else None
    loop = asyncio.get_running_loop()
    await loop.create_server(serve, "0.0.0.0", OPTIONS["port"], ssl=implicit)
    open(os.path.join(DIRECTORY, "ready"), "w").close()
    await asyncio.Event().wait()


asyncio.run(main())
