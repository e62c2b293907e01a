"""The pipeline behind 40_every_type.*: every type and form of binding that flytekit writes.

Serialized with flytekit 1.16.31 as p, development, v1 (module wf)."""

import enum, typing, datetime
from dataclasses import dataclass, field
from collections import OrderedDict
import pandas as pd
from typing import Annotated, NamedTuple, Optional, Union, List, Dict
from flytekit import task, workflow, LaunchPlan, kwtypes, StructuredDataset, HashMethod, Secret, Resources
from flytekit.types.file import FlyteFile
from flytekit.types.directory import FlyteDirectory
from flytekit.types.schema import FlyteSchema

class Color(enum.Enum):
    RED="red"; BLUE="blue"
@dataclass
class Inner:
    z: List[int]; f: Optional[FlyteFile]=None
@dataclass
class P:
    x: int; y: str="a"; inner: Inner=field(default_factory=lambda: Inner([1])); d: Dict[str,float]=field(default_factory=dict); c: Color=Color.RED
@dataclass
class Q:
    x: int; y: str="a"
class Out(NamedTuple):
    a: int
    df: pd.DataFrame
Cols = Annotated[pd.DataFrame, kwtypes(a=int,b=str)]

@task
def mk(x: int=3) -> P: return P(x)
@task
def use(p: P, c: Color, o: Optional[int]=None, u: Union[int,str,None]=None) -> Out:
    return None
@task
def dfs(df: pd.DataFrame, sd: Optional[StructuredDataset]=None, cols: Optional[pd.DataFrame]=None) -> Cols:
    return None
@task
def files(f: FlyteFile, d: FlyteDirectory, uf: Union[FlyteFile, FlyteDirectory]) -> List[FlyteFile]:
    return None
@task
def many(fs: List[FlyteFile], m: Dict[str, List[int]], t: datetime.datetime, td: datetime.timedelta, any_: dict, lst: List[Union[int,str]], ou: Optional[List[Union[int,str]]]=None) -> typing.Tuple[FlyteFile["csv"], Dict[str, Dict[str,int]]]:
    return None
@task
def csv(f: FlyteFile["csv"]) -> None:
    return None
@task
def dcu(p: Union[P, Q, None]) -> Q:
    return None
@task
def num(x: int, y: float, s: str, b: bool) -> int:
    return None
@task
def nest(ls: List[List[Optional[int]]]) -> Dict[str, List[P]]:
    return None
@task
def pick(p: P) -> int:
    return None
@task
def hashed() -> Annotated[pd.DataFrame, HashMethod(lambda d: "1")]:
    return None

@workflow
def sub(x: int, o: Optional[int]=None) -> typing.Tuple[int, P]:
    p = mk(x=x)
    r = num(x=p.x, y=1.5, s=p.y, b=True)
    return r, p

@workflow
def wf(f: FlyteFile, d: FlyteDirectory, df: pd.DataFrame, x: int=5, c: Color=Color.BLUE, o: Optional[int]=None, t: datetime.datetime=datetime.datetime(2024,1,1), m: Dict[str,List[int]]={"a":[1]}) -> typing.Tuple[int, P, Cols]:
    r, p = sub(x=x)
    r2, p2 = sub(x=r, o=o)
    out = use(p=p, c=c, o=r, u="a")
    out2 = use(p=p2, c=Color.RED)
    out3 = use(p=P(3), c=p.c, o=o, u=p.inner.z[0])
    k = dfs(df=out.df)
    k2 = dfs(df=k, sd=out2.df, cols=k)
    fl = files(f=f, d=d, uf=f)
    mn = many(fs=[f, fl[0]], m={"k":[r, 3], "e": []}, t=t, td=datetime.timedelta(seconds=3), any_={"a":1}, lst=[1,"a"], ou=[1,"b"])
    mn2 = many(fs=fl, m=m, t=t, td=datetime.timedelta(seconds=3), any_={}, lst=[])
    csv(f=mn[0])
    csv(f=f)
    n = nest(ls=[[1,2],[r]])
    pick(p=n["a"][0])
    dcu(p=p); 
    q = dcu(p=Q(3))
    dcu(p=q)
    dcu(p=None)
    h = hashed()
    dfs(df=h)
    num(x=mn[1]["a"]["b"], y=p.d["q"], s=q.y, b=False)
    return r2, p, k2
lp = LaunchPlan.get_or_create(workflow=sub, name="lp", default_inputs={"x":3}, fixed_inputs={})
