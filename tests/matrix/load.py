"""Writes 1, 2, 3… to a database, one durable transaction each, and keeps a heart-beat record of it.

usage: load.py sqlite DATABASE STATUS | load.py postgresql CONNECTION STATUS | load.py mariadb SOCKET STATUS | load.py redis SOCKET STATUS
"""
import sys
import time

from beats import Heart


def sql(execute, first):
    """How a number is written, and the last one that is there."""
    return lambda n: execute(f"INSERT INTO written VALUES ({n}, {time.monotonic_ns()})"), first


def sqlite(path):
    import sqlite3
    database = sqlite3.connect(path, timeout=120, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE IF NOT EXISTS written (n INTEGER PRIMARY KEY, at_ns INTEGER)")
    return sql(database.execute, database.execute(LAST).fetchone()[0])


def by_cursor(cursor):
    cursor.execute("CREATE TABLE IF NOT EXISTS written (n bigint PRIMARY KEY, at_ns bigint)")
    cursor.execute(LAST)
    return sql(cursor.execute, cursor.fetchone()[0])


def postgresql(connection):
    import psycopg2
    database = psycopg2.connect(connection)
    database.autocommit = True
    return by_cursor(database.cursor())


def mariadb(socket):
    import pymysql
    return by_cursor(pymysql.connect(unix_socket=socket, user="tester", password="secret", database="matrix", autocommit=True).cursor())


def redis(socket):
    import redis
    client = redis.Redis(unix_socket_path=socket)
    return lambda n: client.rpush("written", f"{n} {time.monotonic_ns()}"), client.llen("written")


LAST = "SELECT coalesce(max(n), 0) FROM written"
kind, where, status = sys.argv[1:]
write, number = {"sqlite": sqlite, "postgresql": postgresql, "mariadb": mariadb, "redis": redis}[kind](where)
heart = Heart(status)
while True:
    number += 1
    write(number)
    heart.beat()
    time.sleep(0.01)
