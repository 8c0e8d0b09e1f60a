"""Acts as the identity that it was started as, told by lines of JSON on standard
input; each is answered by a line.

    {"call": METHOD, "parameters": {…}, "secret": TEXT}  → {"reply": {…}, "secret": TEXT} or {"error": NAME, "text": …}
    {"run": [PROGRAM, …], "env": {…}, "input": TEXT}     → {"status": N, "out": TEXT, "err": TEXT}

All calls go over one connection, which is made and attached at the first.
"""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from varlink import Connection, Error  # noqa: E402


class Agent:
    connection = None

    def call(self, method, parameters, secret=None):
        if not self.connection:
            self.connection = Connection(os.environ["HSMINT_SOCKET"])
            self.connection.attach("agent")
        try:
            reply = self.connection.call(method, secret=secret.encode() if secret else None, **parameters)
        except Error as e:
            return {"error": e.name, "text": e.text}
        return {"reply": reply, "secret": reply.secret.decode() if reply.secret else None}

    def run(self, words, env, text):
        r = subprocess.run(
            words, env={**os.environ, **env}, input=text.encode(), capture_output=True, timeout=60, start_new_session=True
        )
        return {"status": r.returncode, "out": r.stdout.decode("latin-1"), "err": r.stderr.decode("latin-1")}

    def answer(self, told):
        if "run" in told:
            return self.run(told["run"], told.get("env", {}), told.get("input", ""))
        return self.call(told["call"], told.get("parameters", {}), told.get("secret"))


agent = Agent()
for line in sys.stdin:
    print(json.dumps(agent.answer(json.loads(line))), flush=True)
