"""DELETE of a BackupComplete job against its end, many times: a 202 always ends `cancelled`, a 409 is always a job that had ended.

A gate lets the writer end the event at the moment that the test chooses; the DELETE goes out a random moment before or after. Which side wins
more often depends on the machine and its load, so the offset follows: later after a 202, earlier after a 409."""
import random
import threading
import time

from conduct import BACKUP_STATE, Gate, Session, Wire

DRIVERS = 4


class Aim:
    """The moment of the DELETE, in seconds after the opening of the gate; negative: before."""

    def __init__(self):
        self.centre, self.step, self.last = 0.0, 0.001, None

    def shoot(self):
        return random.gauss(self.centre, 2 * self.step)

    def learn(self, won):
        """Longer strides while one side wins on and on, shorter ones at each turn."""
        self.step = min(self.step * 1.5, 0.05) if won == self.last else max(self.step / 2, 0.0005)
        self.last = won
        self.centre += self.step if won else -self.step


def gathered(node, wire):
    """No component is added, so nothing will need a snapshot; every writer takes part as component mode is off."""
    session = Session(node, wire)
    assert session.call("PUT", "/backup-state", dict(BACKUP_STATE, component_mode=False)).status == 200
    session.done("metadata")
    return session


def race(session, gate, aim):
    """True when the DELETE won."""
    assert session.call("POST", "/snapshot-set", {}).status == 201
    session.done("prepare")
    job = session.begin("complete")
    offset = aim.shoot()
    if offset >= 0:
        gate.open()
        time.sleep(offset)
        session.wire.ask("DELETE", "/jobs/" + job["id"])
    else:
        session.wire.ask("DELETE", "/jobs/" + job["id"])
        time.sleep(-offset)
        gate.open()
    reply = session.wire.hear()
    won = reply.status == 202
    ended = session.wire.wait(job)
    view = session.view()
    if won:
        assert reply.json["cancel"] == "S_OK" and reply.json["state"] == "cancelling", reply
        assert (ended["state"], ended["hresult"], view["state"]) == ("cancelled", "VSS_S_ASYNC_CANCELLED", "aborted"), (ended, view)
    else:
        assert reply.status == 409 and reply.json["hresult"] == "VSS_S_ASYNC_FINISHED" and reply.json["state"] == "succeeded", reply
        assert (ended["state"], ended["hresult"], view["state"]) == ("succeeded", "VSS_S_ASYNC_FINISHED", "completed"), (ended, view)
    assert session.wire.get("/jobs/" + job["id"]) == ended, "a terminal state never changes"
    aim.learn(won)
    return won


def run(node, races, least):
    """Runs them, several sessions at a time; at least `least` must end either way."""
    outcomes, failures, aim, tickets = [], [], Aim(), iter(range(races))
    slot = threading.Lock()  # one snapshot set in creation per node: what goes in parallel is all the rest

    def drive():
        wire = Wire(node)
        try:
            while not failures and next(tickets, None) is not None:
                session = gathered(node, wire)
                gate = Gate(node.place, session)
                with slot:
                    outcomes.append(race(session, gate, aim))
                assert session.call("DELETE").status in (202, 204)
                gate.close()
        except Exception as failure:  # handed to the test's own thread
            failures.append(failure)

    threads = [threading.Thread(target=drive) for _ in range(DRIVERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    won = sum(outcomes)
    print(f"{won} cancelled, {races - won} finished; offset {aim.centre * 1000:.1f} ms")
    assert len(outcomes) == races and least <= won <= races - least, f"the aim did not follow: {won} of {races} cancelled"
